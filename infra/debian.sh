#!/usr/bin/env bash
# Installs the Debian packages that tests need, where they are missing and that is allowed.
# Without one its tests are skipped with a reason; in CI that is a failure.
set -u

PLUGIN=/usr/share/orthanc/plugins/libOrthancDicomWeb.so

missing=""
command -v chromium >/dev/null || missing="$missing chromium"  # plays the person at Prefect's page
command -v dcmdump >/dev/null || missing="$missing dcmtk"      # reads DICOM independently of us
[ -x /usr/sbin/Orthanc ] || missing="$missing orthanc"       # with its plugin: a DICOMweb server
[ -f "$PLUGIN" ] || missing="$missing orthanc-dicomweb"
command -v dciodvfy >/dev/null || missing="$missing dicom3tools"  # judges whether what we write is DICOM
command -v tesseract >/dev/null || missing="$missing tesseract-ocr tesseract-ocr-eng"  # a second reader of text
[ -z "$missing" ] && exit 0

give_up() {
  echo "Missing for the tests:$missing ($1). Install these packages to run all of them."
  if [ "${CI:-}" = "true" ]; then
    echo "In CI nothing is skipped."
    exit 1
  fi
  echo "Their tests will be skipped."
  exit 0
}

if [ "$(id -u)" = 0 ]; then
  as_root=""
elif sudo -n true 2>/dev/null; then
  as_root="sudo -n"
else
  give_up "neither root nor sudo without a password"
fi
command -v apt-get >/dev/null || give_up "this machine has no apt-get"

echo "Installing with apt-get, for the tests:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # words on purpose
$as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends $missing \
  || give_up "apt-get could not install them"

# The package starts a server of its own on fixed ports, which nobody asked for: tests start theirs.
# Whoever had one before keeps it.
case " $missing " in
  *" orthanc "*)
    if [ -d /run/systemd/system ]; then
      $as_root systemctl disable --quiet --now orthanc
    else
      $as_root /etc/init.d/orthanc stop >/dev/null 2>&1
    fi
    ;;
esac
exit 0
