"""TensorBoard event files of trials, written without a writer's threads.

tensorboardX's writer has a queue, two threads and an fsync for each trial, which a cohort of hundreds cannot have, and
whatever waits in the queue is lost with a worker that is killed.
"""

from __future__ import annotations

import logging
import math
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from hpo.config.parameter import Value
from hpo.training.callbacks import Callback
from hpo.training.member import Member, Metrics, Status, TrainResult

__all__ = ["TensorBoard"]

log = logging.getLogger("hpo.training")
NAME = "events.out.tfevents"  # how TensorBoard knows its files


class TensorBoard(Callback):
    """TensorBoard log: every metric of every epoch as a scalar, and each trial's parameters for the tab HPARAMS.

    Each trial has a folder. A trial that resumes adds a file of its own: events of earlier files from the epochs to
    come are hidden. Its earlier epochs are written only where the folder has no events yet. A file that cannot be
    written is logged, and training goes on without it.

    Args:
        folders: of the trials, in the order in which they are given to `train`; missing ones are created.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._files: dict[int, Path] = {}

    @override
    def on_start(self, member: Member) -> None:
        """Begin the trial's event file; none where the trial is another worker's by now, which has begun its own."""
        if member.stopped:
            return
        folder = self._folders[member.number]
        has_events = any(folder.glob(f"{NAME}.*"))
        # TensorBoard reads them in the order of their names; seconds come first in every tool's.
        now = time.time_ns()
        self._files[member.number] = folder / f"{NAME}.{now // 10**9:010d}.{socket.gethostname()}.{now}"
        self._append(member, {"file_version": "brain.Event:2"})
        self._append(member, {"summary": {"value": [_session_start(member.params)]}})
        if has_events:
            # 1 is START: events of this step and later ones, in what was read before, do not count any more.
            self._append(member, {"step": member.resumed_from + 1, "session_log": {"status": 1}})
        else:
            for metrics in member.history:
                self.on_epoch(member, metrics)

    @override
    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        """Write the finite scalars: TensorBoard cannot show others."""
        scalars = [
            {"tag": name, "simple_value": value}
            for name, value in metrics.items()
            if name != "epoch" and math.isfinite(value)
        ]
        self._append(member, {"step": int(metrics["epoch"]), "summary": {"value": scalars}})

    @override
    def on_end(self, member: Member, outcome: TrainResult) -> None:
        """Write whether the trial succeeded; one that was interrupted or paused has not ended."""
        if outcome.status not in ("interrupted", "paused"):
            self._append(member, {"summary": {"value": [_session_end(outcome.status)]}})

    def _append(self, member: Member, fields: dict[str, Any]) -> None:
        """Add an event to the trial's file: a worker that is killed leaves all those before."""
        path = self._files.get(member.number)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(_record(fields))
        except OSError as error:
            log.warning("%s: not written (%s); training goes on without it", path, error.strerror or error)
            del self._files[member.number]


def _session_start(parameters: Mapping[str, Value]) -> dict[str, Any]:
    """Return the summary from which TensorBoard's plugin `hparams` reads a run's parameters, each in its own type."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionStartInfo

    info = SessionStartInfo(start_time_secs=time.time())
    for name, value in parameters.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = str(value)
    return _for_plugin("session_start_info", HParamsPluginData(session_start_info=info, version=0))


def _session_end(status: Status) -> dict[str, Any]:
    from tensorboardX.proto import api_pb2, plugin_hparams_pb2

    status_code = api_pb2.STATUS_FAILURE if status == "diverged" else api_pb2.STATUS_SUCCESS
    info = plugin_hparams_pb2.SessionEndInfo(status=status_code, end_time_secs=time.time())
    return _for_plugin("session_end_info", plugin_hparams_pb2.HParamsPluginData(session_end_info=info, version=0))


def _for_plugin(tag: str, content: Any) -> dict[str, Any]:
    plugin = {"plugin_name": "hparams", "content": content.SerializeToString()}
    return {"tag": f"_hparams_/{tag}", "metadata": {"plugin_data": plugin}}


def _record(fields: dict[str, Any]) -> bytes:
    """Return an event as its file holds it: the length, the bytes, and a checksum of each."""
    from tensorboardX.proto.event_pb2 import Event  # 0.3 s, which trials without it need not pay
    from tensorboardX.record_writer import masked_crc32c

    data: bytes = Event(wall_time=time.time(), **fields).SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
