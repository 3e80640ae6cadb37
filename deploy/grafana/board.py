#!/usr/bin/env python3
"""Makes board.json beside it: python deploy/grafana/board.py. A test holds the two together.

Panels are lines of the table ROWS. Colours, sizes and legends are the same everywhere, so they stand in the code below it."""

import pathlib

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.dashboard import DataSourceRef

BOARD = pathlib.Path(__file__).with_name("board.json")
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
NODES = 'instance=~"$instance"'


def quantile(share, metric, *labels, of=""):
    by = ", ".join((*labels, "le"))
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{{NODES}{of}}}[$__rate_interval])))"


def rate(metric, *labels):
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"sum{by} (rate({metric}{{{NODES}}}[$__rate_interval]))"


def total(metric, *labels, of=""):
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"sum{by} ({metric}{{{NODES}{of}}})"


# Rows of panels: (title, what it says, unit, {legend: query}). One number where the unit begins with "=".
ROWS = {
    "Overview": [
        ("Running", "Jobs that run now.", "=short", {"running": total("kino_jobs", of=', state="running"')}),
        ("Waiting", "Jobs in the queue.", "=short", {"waiting": total("kino_queue_depth")}),
        ("Workers up", "Workers that are connected.", "=short", {"up": total("kino_worker_up")}),
        ("Devices out", "Devices that are out of service, since jobs kept crashing on them.", "=short", {"out": total("kino_device_out")}),
        ("Failures", "Share of attempts that failed for a reason of the node's, in 15 minutes.", "=percentunit",
         {"failed": f"max(kino:attempts_failed:ratio{{{NODES}}}) or vector(0)"}),
        ("Disk", "Free on the data folder's disk, of the node that has least.", "=bytes", {"free": f"min(kino_disk_free_bytes{{{NODES}}})"}),
        ("Jobs by state", "Jobs that the store holds.", "short", {"{{state}}": total("kino_jobs", "state")}),
        ("Jobs that end", "By their final state, a second.", "short", {"{{state}}": rate("kino_jobs_ended_total", "state")}),
        ("Attempts that end", "By their result, a second. A job may need several.", "short", {"{{result}}": rate("kino_attempts_ended_total", "result")}),
    ],
    "A job's life": [
        ("Wait for the start", "From submission to the first attempt.", "s",
         {f"{{{{class}}}} p{int(share * 100)}": quantile(share, "kino_queue_wait_seconds", "class") for share in (0.5, 0.95)}),
        ("First chunk", "From an attempt's start to its first bytes.", "s",
         {f"{{{{model}}}} p{int(share * 100)}": quantile(share, "kino_first_chunk_seconds", "model") for share in (0.5, 0.95)}),
        ("Whole job", "From submission to the end, of those that succeeded.", "s",
         {f"p{int(share * 100)}": quantile(share, "kino_job_seconds", of=', state="succeeded"') for share in (0.5, 0.95)}),
        ("Cancelling", "From the order to stop a running job until its worker is free.", "s",
         {f"p{int(share * 100)}": quantile(share, "kino_cancel_seconds") for share in (0.5, 0.9)}),
    ],
    "Stages by model": [
        ("Stages", "Mean seconds of each stage of an attempt.", "s",
         {"{{model}} {{stage}}": f"{rate('kino_stage_seconds_sum', 'model', 'stage')} / {rate('kino_stage_seconds_count', 'model', 'stage')}"}),
        ("Denoise steps", "Seconds of one step.", "s",
         {f"{{{{model}}}} p{int(share * 100)}": quantile(share, "kino_step_seconds", "model") for share in (0.5, 0.95)}),
        ("Loads", "Seconds until a worker has a model; others wait meanwhile.", "s", {"{{model}} p95": quantile(0.95, "kino_model_load_seconds", "model")}),
        ("Loads an hour", "Each is a model that another one had pushed out, or a worker's start.", "short",
         {"{{model}}": f"sum by (model) (increase(kino_model_load_seconds_count{{{NODES}}}[1h]))"}),
        ("Cost of a second", "Seconds that devices work for a second of video.", "s", {"{{model}}": f"kino:device_seconds:per_output_second{{{NODES}}}"}),
        ("Video made", "Seconds of video that come out, a second.", "s", {"{{model}}": rate("kino_output_seconds_total", "model")}),
    ],
    "Memory by worker": [
        ("Memory in use", "Of the worker's device.", "bytes", {"{{worker}}": total("kino_device_memory_used_bytes", "instance", "worker")}),
        ("Share in use", "Of the device's memory.", "percentunit",
         {"{{worker}}": f"{total('kino_device_memory_used_bytes', 'instance', 'worker')} / {total('kino_device_memory_bytes', 'instance', 'worker')}"}),
        ("Spool", "Bytes that a worker keeps until the frontend has them. They grow while the frontend is away.", "bytes",
         {"{{worker}}": total("kino_spool_bytes", "instance", "worker")}),
        ("Workers killed", "Since they hung, in an hour.", "short", {"{{instance}}": f"sum by (instance) (increase(kino_workers_killed_total{{{NODES}}}[1h]))"}),
    ],
    "Queue by tenant and class": [
        ("Waiting by class", "Jobs in the queue.", "short", {"{{class}}": total("kino_queue_depth", "class")}),
        ("Waiting by tenant", "Of the first fifty tenants; the others together.", "short", {"{{tenant}}": total("kino_tenant_jobs", "tenant", of=', state="queued"')}),
        ("Running by tenant", "Of the first fifty tenants; the others together.", "short", {"{{tenant}}": total("kino_tenant_jobs", "tenant", of=', state="running"')}),
    ],
    "The server": [
        ("Commits of the store", "Every submission waits for one.", "s", {f"p{int(share * 100)}": quantile(share, "kino_store_commit_seconds") for share in (0.5, 0.99)}),
        ("Clients", "Connections, and streams that watch a job.", "short", {"connections": total("kino_connections"), "watchers": total("kino_watchers")}),
        ("Video sent", "Bytes to clients, a second.", "Bps", {"sent": rate("kino_streamed_bytes_total")}),
        ("Disk in use", "Taken by videos and uploads.", "bytes", {"{{instance}}": total("kino_disk_used_bytes", "instance")}),
        ("Messages refused", "Of workers whose attempt was not theirs any more, an hour.", "short",
         {"{{instance}}": f"sum by (instance) (increase(kino_stale_messages_total{{{NODES}}}[1h]))"}),
        ("Certificate", "Time until it ends. Nothing without TLS.", "=s", {"{{instance}}": f"min(kino_certificate_expiry_timestamp_seconds{{{NODES}}} - time())"}),
    ],
}


def panel(title, description, unit, queries):
    is_number = unit.startswith("=")
    made = (stat.Panel().span(4).height(4) if is_number else
            timeseries.Panel().span(8).height(8).fill_opacity(10).show_points(models.VisibilityMode.NEVER).min(0)
            .legend(common.VizLegendOptions().show_legend(True).display_mode(models.LegendDisplayMode.LIST)
                    .placement(models.LegendPlacement.BOTTOM))
            .tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI).sort(models.SortOrder.DESCENDING)))
    made = made.title(title).description(description).unit(unit.lstrip("=")).datasource(DATASOURCE)
    for i, (legend, query) in enumerate(queries.items()):
        made = made.with_target(prometheus.Dataquery().ref_id(chr(ord("A") + i)).expr(query).legend_format(legend))
    return made


def board():
    made = (dashboard.Dashboard("Kino").uid("kino").tags(["kino"]).refresh("30s").time("now-6h", "now").timezone("browser").editable()
            .description("A Kino node, or several: jobs, stages, memory, tenants, the server.")
            .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
            .with_variable(dashboard.QueryVariable("instance").label("Node").datasource(DATASOURCE)
                           .query("label_values(kino_watchers, instance)").multi(True).include_all(True).all_value(".*")))
    for title, panels in ROWS.items():
        made = made.with_row(dashboard.Row(title))
        for each in panels:
            made = made.with_panel(panel(*each))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


if __name__ == "__main__":
    BOARD.write_text(board(), encoding="utf-8")
