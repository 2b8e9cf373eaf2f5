"""The networks, tasks and preprocessing of one model at its operating points; they share one set of weights."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from threading import Lock
from typing import Any

from vitrail.data.batch import images_only
from vitrail.data.preprocess import Preprocess
from vitrail.layers.elastic import OperatingPoint, at_size, read_point, set_keep, set_merge
from vitrail.models.patch_size import with_patch
from vitrail.runs.model_file import Header
from vitrail.runs.network import Network, lend_network, task_of
from vitrail.runs.proof import fingerprint, proof_image_for
from vitrail.tasks.base import Task
from vitrail.tasks.wrappers.elastic import points_of


class PointNetworks:
    """A network with its task, for each operating point; made on first use, by any thread.

    `trained` are the operating points that the model was trained for, the whole network last.
    """

    def __init__(self, network: Network, task: Task[Any, Any], header: Header) -> None:
        self.network, self.header = network, header
        self.preprocess = Preprocess.from_dict(header.preprocess)
        self.trained = points_of(task, self.preprocess.size)
        self._networks: dict[OperatingPoint, Network] = {}
        self._tasks: dict[OperatingPoint, Task[Any, Any]] = {self.trained[-1]: task}
        self._making = Lock()

    @property
    def known(self) -> tuple[OperatingPoint, ...]:
        """The operating points that the model was trained for, and those that were measured."""
        measured = (read_point(row["point"]) for row in self.header.points)
        return tuple(dict.fromkeys([*measured, *self.trained]))

    def at(self, point: OperatingPoint) -> Network:
        """Return the network for an operating point.

        Raises:
            SettingError: the network cannot drop or merge tokens, or cannot have such patches.
        """
        # Positions are resized for whatever size comes; only other patches make a network for one size.
        key = point if point.patch else point._replace(size=self.preprocess.size)
        if key == OperatingPoint(self.preprocess.size):
            return self.network
        with self._making:
            if key not in self._networks:
                self._networks[key] = _at_point(self.network, key)
            return self._networks[key]

    def task_at(self, point: OperatingPoint) -> Task[Any, Any]:
        """Return the task for an operating point: with the temperature and limits that were measured there, if any."""
        with self._making:
            if point not in self._tasks:
                self._tasks[point] = self._calibrated(point)
            return self._tasks[point]

    def _calibrated(self, point: OperatingPoint) -> Task[Any, Any]:
        task = self._stored_task(point)
        if task == self.header.task:
            return self._tasks[self.trained[-1]]
        made = task_of(self.header.model_copy(update={"task": task}), {})
        lend_network(made, self.network)
        return made

    def _stored_task(self, point: OperatingPoint) -> dict[str, Any]:
        """Return the task of the header, changed as it was measured at an operating point."""
        row = next((row for row in self.header.points if row["point"] == str(point)), {})
        change, task = row.get("task", {}), dict(self.header.task)
        task["settings"] = {**task["settings"], **change.get("settings", {})}
        if task.get("abstention") is not None:
            task["abstention"] = {**task["abstention"], **change.get("abstention", {})}
        return task

    def preprocess_at(self, point: OperatingPoint) -> Preprocess:
        """Return the steps before the network at an operating point.

        A network that was trained for several sizes gets the largest one, resized again (`at_size`), as in training.
        """
        trained = point.size in {one.size for one in self.trained}
        return self.preprocess if trained else replace(self.preprocess, size=point.size)

    def header_at(self, point: OperatingPoint) -> Header:
        """Return the header of a file that answers at one operating point only, with the proof of this point.

        The networks must be on the CPU.
        """
        if point == self.trained[-1]:
            return self.header
        steps = self.preprocess_at(point)
        shown, _ = steps.eval(proof_image_for(steps))
        proof = fingerprint(
            self.task_at(point), self.at(point), images_only(at_size(shown[None], point.size))
        )
        change = {
            "task": self._stored_task(point),
            "preprocess": steps.to_dict(),
            "proof": proof,
            "points": [row for row in self.header.points if row["point"] == str(point)],
            "point": str(point),
        }
        return self.header.model_copy(update=change)


def _at_point(network: Network, point: OperatingPoint) -> Network:
    """Return a copy for an operating point that shares every tensor, except those of patches with another size."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    copy = deepcopy(network, shared)
    if point.patch:
        copy.encoder = with_patch(network.encoder, point.size, point.patch)
    set_keep(copy, point.keep)
    set_merge(copy, point.merge)
    return copy
