"""Assignment to splits: by patient, near the shares in every stratum, and never changed by what is added."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from imaging.dataset.split.assignment import assign as assign_numbers
from imaging.dataset.split.assignment import draw_splits, rarest_findings
from imaging.dataset.split.fingerprint import ZERO
from imaging.dataset.split.shares import SPLITS, SplitConfig
from imaging.dataset.tables.schemas import TABLES

SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
names = st.text("0123456789abcdef", min_size=1, max_size=6)
strata = st.dictionaries(names, st.sampled_from("xyz"))


def assign(
    strata: Mapping[str, str | tuple[str, str]],
    previous: Mapping[str, str],
    shares: Mapping[str, float],
    linked: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Assign by names; who has one stratum has a fine one that is the same."""
    patients, splits, together = sorted(strata), list(shares), linked or {}
    pairs = [
        (strata[name], strata[name] + "@") if isinstance(strata[name], str) else strata[name]
        for name in patients
    ]
    groups = [together.get(name, f"of {name} alone") for name in patients]
    before = [splits.index(previous[name]) if name in previous else -1 for name in patients]
    numbers = np.unique(pairs, return_inverse=True)[1].reshape(-1, 2)
    group = np.unique(groups, return_inverse=True)[1] if groups else np.empty(0, np.int64)
    drawn = assign_numbers(numbers, np.array(before, np.int64), list(shares.values()), group)
    return {name: splits[number] for name, number in zip(patients, drawn.tolist(), strict=True)}


def plainly(
    strata: Mapping[str, Sequence[str]],
    previous: Mapping[str, str],
    shares: Mapping[str, float],
    linked: Mapping[str, str],
) -> dict[str, str]:
    """Assign patient by patient, as it was first written: versions that were published by it keep their splits."""
    splits = {name: previous[name] for name in strata if name in previous}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, split in splits.items():
        for stratum in strata[name]:
            counts[stratum][split] += 1
    taken = {linked[name]: previous[name] for name in sorted(linked, reverse=True) if name in previous}
    for name in sorted(strata.keys() - splits.keys()):
        filled = {split: sum(counts[stratum][split] for stratum in strata[name]) for split in shares}
        total = sum(filled.values()) + len(strata[name])
        shortest = max(shares, key=lambda split: shares[split] * total - filled[split])
        splits[name] = taken.get(linked.get(name, name), shortest)
        taken[linked.get(name, name)] = splits[name]
        for stratum in strata[name]:
            counts[stratum][splits[name]] += 1
    return splits


@given(
    st.dictionaries(names, st.tuples(st.sampled_from("xyz"), st.sampled_from("123"))),
    st.dictionaries(names, st.sampled_from(SPLITS)),
    st.dictionaries(names, st.sampled_from("ABC")),
    st.data(),
)
def test_the_columns_are_assigned_as_each_patient_would_be(
    sites: dict[str, tuple[str, str]], before: dict[str, str], groups: dict[str, str], data: st.DataObject
) -> None:
    known = data.draw(st.sets(st.sampled_from(sorted(sites)))) if sites else set()
    previous = {**before, **{name: SPLITS[len(name) % 3] for name in known}}
    strata = {name: (label, f"{label}@{site}") for name, (label, site) in sites.items()}
    linked = {name: groups.get(name, name[:1] + " alike") for name in sites}
    assert assign(strata, previous, SHARES, linked) == plainly(strata, previous, SHARES, linked)


@given(strata, strata)
def test_a_patient_never_changes_the_split_whatever_is_added(
    old: dict[str, str], new: dict[str, str]
) -> None:
    first = assign(old, {}, SHARES)
    second = assign(old | new, first, SHARES)
    assert {patient: second[patient] for patient in old} == first


@given(strata)
def test_every_patient_gets_a_split(patients: dict[str, str]) -> None:
    assert assign(patients, {}, SHARES).keys() == patients.keys()


@given(strata)
def test_the_same_patients_are_split_the_same_in_any_order(patients: dict[str, str]) -> None:
    backwards = dict(reversed(patients.items()))
    assert assign(backwards, {}, SHARES) == assign(patients, {}, SHARES)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_shares_are_approached_however_the_patients_arrive(nights: list[int]) -> None:
    splits: dict[str, str] = {}
    patients: dict[str, str] = {}
    for night, count in enumerate(nights):
        patients |= {f"{night}-{number}": "x" for number in range(count)}
        splits = assign(patients, splits, SHARES)
    counts = Counter(splits.values())
    for split, share in SHARES.items():
        assert abs(counts[split] - share * len(patients)) <= 1


@pytest.mark.parametrize("stratum", ["x", "y"])
def test_shares_are_kept_in_every_stratum(stratum: str) -> None:
    patients = {f"{number:03d}": "xxxy"[number % 4] for number in range(400)}
    splits = assign(patients, {}, SHARES)
    counts = Counter(split for patient, split in splits.items() if patients[patient] == stratum)
    size = sum(counts.values())
    assert all(abs(counts[split] - share * size) <= 1 for split, share in SHARES.items())


def test_a_patient_whose_labels_changed_keeps_the_split() -> None:
    assert assign({"a": "y"}, {"a": "test"}, SHARES) == {"a": "test"}


def test_patients_who_are_gone_are_not_given_out() -> None:
    assert assign({"a": "x"}, {"gone": "test"}, SHARES).keys() == {"a"}


def test_a_few_patients_reach_every_split() -> None:
    assert set(assign({str(number): "x" for number in range(6)}, {}, SHARES).values()) == set(SPLITS)


def test_shares_add_up_to_one() -> None:
    assert sum(SplitConfig().shares.values()) == pytest.approx(1)


def test_each_split_has_a_share() -> None:
    assert tuple(SplitConfig().shares) == SPLITS


def test_too_little_to_train_on_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"val \+ test is 0\.95; at most 0\.9"):
        SplitConfig(val=0.45, test=0.5)


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(ValidationError):
        SplitConfig(test=share)


def test_a_new_patient_joins_the_split_of_a_linked_one() -> None:
    splits = assign({"a": "x", "b": "x"}, {"b": "test"}, SHARES, {"a": "a", "b": "a"})
    assert splits == {"a": "test", "b": "test"}


def test_new_patients_who_are_linked_are_in_one_split() -> None:
    patients = {f"{number:02d}": "x" for number in range(20)}
    splits = assign(patients, {}, SHARES, {name: "00" for name in patients if int(name) % 2})
    assert len({splits[name] for name in patients if int(name) % 2}) == 1


def test_a_linked_patient_who_has_a_split_keeps_it() -> None:
    splits = assign({"a": "x", "b": "x"}, {"a": "train", "b": "test"}, SHARES, {"a": "a", "b": "a"})
    assert splits == {"a": "train", "b": "test"}


def test_shares_are_kept_over_all_where_every_site_has_one_patient() -> None:
    strata = {f"{number:03d}": ("x", f"x@{number}") for number in range(200)}
    counts = Counter(assign(strata, {}, SHARES).values())
    assert all(abs(counts[split] - share * 200) <= 1 for split, share in SHARES.items())


def test_shares_are_kept_at_every_large_site() -> None:
    strata = {f"{number:03d}": ("x", f"x@{number % 3}") for number in range(300)}
    splits = assign(strata, {}, SHARES)
    for site in range(3):
        counts = Counter(splits[name] for name, (_, fine) in strata.items() if fine == f"x@{site}")
        assert all(abs(counts[split] - share * 100) <= 1 for split, share in SHARES.items())


IMAGES = st.tuples(
    st.integers(0, 11), st.integers(0, 20), st.sampled_from(["a", "b", "é", None]), st.integers(0, 2)
)


def labelled(images: list[tuple[int, int, str | None, int]]) -> pa.Table:
    """Return the columns that splits are drawn by; images of one number are equal."""
    prints = [
        np.random.default_rng(number).integers(0, 256, 64, np.uint8).tobytes() for _, number, _, _ in images
    ]
    return pa.table(
        {
            "patient_key": pa.array([f"p{patient}" for patient, *_ in images], pa.string()),
            "label": pa.array([label for *_, label, _ in images], pa.string()),
            "site_key": pa.array([f"site {site}" for *_, site in images], pa.string()),
            "source_split": pa.nulls(len(images), pa.string()),
            "fingerprint": pa.array(prints, pa.binary(64)),
        }
    )


def drawn_plainly(images: list[tuple[int, int, str | None, int]], previous: dict[str, str]) -> dict[str, str]:
    """Draw the splits of the same images, patient by patient."""
    labels: dict[str, set[str]] = {}
    sites: dict[str, set[str]] = {}
    shown: dict[int, set[str]] = {}
    for patient, number, label, site in images:
        if label is not None:
            labels.setdefault(f"p{patient}", set()).add(label)
            sites.setdefault(f"p{patient}", set()).add(f"site {site}")
            shown.setdefault(number, set()).add(f"p{patient}")
    # What only known patients share is not searched for.
    alike = [names for names in shown.values() if names - previous.keys()]
    linked = {name: name for name in labels}
    for _ in labels:
        for names in alike:
            first = min(linked[name] for name in names)
            linked.update(dict.fromkeys(names, first))
    coarse = {name: "|".join(sorted(own)) for name, own in labels.items()}
    strata = {name: (label, f"{label}@" + "|".join(sorted(sites[name]))) for name, label in coarse.items()}
    return {**previous, **plainly(strata, previous, SplitConfig().shares, linked)}


@given(st.lists(IMAGES), st.dictionaries(st.integers(0, 15), st.sampled_from(SPLITS)))
def test_splits_are_drawn_as_patient_by_patient(
    images: list[tuple[int, int, str | None, int]], known: dict[int, str]
) -> None:
    previous = {f"p{patient}": split for patient, split in known.items()}
    before = pa.table([list(previous), list(previous.values())], schema=TABLES["splits"])
    drawn = draw_splits(labelled(images), before, SplitConfig().shares)
    splits = dict(zip(drawn["patient_key"].to_pylist(), drawn["split"].to_pylist(), strict=True))
    assert splits == drawn_plainly(images, previous)
    assert drawn.schema == TABLES["splits"]


def test_a_patient_counts_for_the_rarest_finding() -> None:
    patients = pa.chunked_array([["a", "a", "b", "c", "d"]])
    findings = np.array([[1, 0], [0, 1], [1, 0], [0, 0], [-1, -1]], np.int8)
    # Of "common" are a and b, of "rare" a alone; c has neither, and nobody else lacks "common".
    strata = rarest_findings(patients, findings, ("common", "rare"))
    assert strata.to_pylist() == ["1rare", "1rare", "1common", "0common", None]


def test_a_rare_finding_is_in_every_split() -> None:
    """Beside a common one that most patients have, five patients of two hundred reach all three splits."""
    findings = np.array([[n % 2, n % 40 == 0] for n in range(200)], np.int8)
    keys = pa.chunked_array([pa.array([f"p{n:03d}" for n in range(200)])])
    examples = pa.table(
        {
            "patient_key": keys,
            "label": rarest_findings(keys, findings, ("common", "rare")),
            "site_key": pa.array([""] * 200),
            "source_split": pa.nulls(200, pa.string()),
            "fingerprint": pa.array([bytes([ZERO]) * 64] * 200, pa.binary(64)),
        }
    )
    drawn = draw_splits(examples, TABLES["splits"].empty_table(), SHARES)
    split = dict(zip(drawn["patient_key"].to_pylist(), drawn["split"].to_pylist(), strict=True))
    assert {split[f"p{n:03d}"] for n in range(0, 200, 40)} == set(SPLITS)
