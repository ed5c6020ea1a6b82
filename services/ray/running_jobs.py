"""Owns the end of a Ray job whose flow run has ended otherwise than it should."""

from services.settings import Settings


def stop(flow_run_id: str, settings: Settings) -> None:
    """End the Ray job that a flow run left behind."""
    if settings.ray_address:
        # Loading it loads Ray.
        from services.ray.cluster import stop_job

        stop_job(settings.ray_address, f"prefect-{flow_run_id}")
