"""Reads a legacy checkpoint: what we write, what AscendSpeed converts, what training saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import CkptError, MismatchError
from bc2_ckpt.formats.megatron_legacy.arguments import config_from_args
from bc2_ckpt.formats.megatron_legacy.content import load_rank_file
from bc2_ckpt.formats.megatron_legacy.directory import LegacyDirectory
from bc2_ckpt.formats.megatron_legacy.names import FAMILIES
from bc2_ckpt.formats.megatron_legacy.plan import LegacyTensor, legacy_tensors
from bc2_ckpt.formats.protocol import TensorInfo, check_tensors
from bc2_ckpt.layout import ParameterLayout
from bc2_ckpt.mapped import use
from bc2_ckpt.parallel import check_parallel
from bc2_ckpt.transforms import join_rows, shard_rows
from bc2_data.vocab import padded_vocab_size


class LegacyReader:
    """The model in a legacy checkpoint; what else training saved is left out.

    Attributes:
        format: ``megatron-legacy``.
        source: The folder that holds a folder for each rank.
        config: The model.
    """

    format = "megatron-legacy"

    def __init__(self, directory: LegacyDirectory, config: ModelConfig | None = None) -> None:
        """Opens the files of all ranks and checks names and shapes.

        Args:
            directory: As `bc2_ckpt.formats.megatron_legacy.directory.find` returns it.
            config: The model; None for the config.json beside the checkpoint, or else for the
                arguments of the training run that saved it.

        Raises:
            CkptError: Something is missing, damaged, unsafe or does not match the config.
        """
        self.source = directory.path
        self._directory = directory
        self._files = {rank: load_rank_file(path) for rank, path in directory.files.items()}
        self._first = self._files[0, 0]
        self.config = config or self._stored_config()
        expected = self._expected_tensors()
        self._check(expected)
        self._where = {
            tensor.param.hf[block]: (tensor, place)
            for tensor in expected
            for place, block in enumerate(tensor.blocks)
        }
        self._tensors = {
            name: TensorInfo(tensor.param.shape, self._shards(tensor)[0].dtype)
            for name, (tensor, _) in self._where.items()
        }

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Returns every tensor by its Hugging Face name, in the order of the model."""
        return self._tensors

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor or rows of it, in Hugging Face's arrangement and without padding.

        Raises:
            MismatchError: Ranks that should hold copies of one tensor hold different ones.
        """
        tensor, place = self._where[name]
        param = tensor.param
        shards = [shard.chunk(len(tensor.blocks))[place] for shard in self._shards(tensor)]
        used: list[Tensor] = []

        def read(run: slice) -> Tensor:
            used.extend(shard_rows(shards, run, param.tp))
            return join_rows(shards, run, param.tp)

        result = param.hf_rows(rows or slice(0, param.shape[0]), read)
        use(used)
        return result

    def notes(self) -> Sequence[str]:
        """Returns what is left out: the optimizer, the states of random numbers."""
        left_out = dict.fromkeys(key for file in self._files.values() for key in file.left_out)
        siblings = {
            path.name
            for file in self._files.values()
            for path in file.path.parent.iterdir()
            if path != file.path
        }
        names = ", ".join([*left_out, *sorted(siblings)])
        return (f"what training saved beside the model is left out: {names}",) if names else ()

    def origin(self) -> Mapping[str, int]:
        """Returns the parallel layout, and the iteration of a training run."""
        origin = {
            "tp": self._directory.tp,
            "pp": self._directory.pp,
            "vpp": len(self._first.chunks),
        }
        if self._first.iteration:
            origin["iteration"] = self._first.iteration
        return origin

    def beside(self, name: str) -> Path | None:
        """Returns a small file of the checkpoint, which may lie beside the tracker, or None."""
        return self._directory.beside(name)

    def _stored_config(self) -> ModelConfig:
        path = self.beside("config.json")
        if path is not None:
            return ModelConfig.load(path)
        if self._first.args is not None:
            return config_from_args(self._first.args, self._first.path)
        raise CkptError(
            f"{self.source} has neither a config.json nor the arguments of a training run",
            "say which model it is: --config baichuan2-7b, baichuan2-13b or a directory",
        )

    def _expected_tensors(self) -> list[LegacyTensor]:
        """Returns what the files should hold, under the names that most of it has."""
        tp, pp, vpp = self._directory.tp, self._directory.pp, len(self._first.chunks)
        padded = self._padded_vocab_size()
        check_parallel(self.config, tp, pp, vpp, padded)
        layout = ParameterLayout(self.config, tp, padded)
        found = self._first.chunks[0].keys()
        plans = (legacy_tensors(layout, self.config, names, pp, vpp) for names in FAMILIES.values())
        return max(plans, key=lambda plan: len(found & {tensor.flat_name for tensor in plan}))

    def _padded_vocab_size(self) -> int:
        """Returns the rows of all ranks' parts of the embedding."""
        rows, tp = self.config.vocab_size, self._directory.tp
        for name, tensor in self._first.chunks[0].items():
            if name.endswith("word_embeddings.weight"):
                if len(tensor) * tp < rows:
                    raise MismatchError(
                        f"{self._first.path}: {name!r} has {len(tensor)} rows, times {tp} ranks, "
                        f"but the config asks for {rows}",
                        "give the config that belongs to these weights with --config",
                    )
                return len(tensor) * tp
        return padded_vocab_size(rows, 1, tp)  # that it is missing is found with the others

    def _check(self, expected: list[LegacyTensor]) -> None:
        for (_, pp_rank), file in self._files.items():
            if len(file.chunks) != len(self._first.chunks):
                raise MismatchError(
                    f"{file.path} has {len(file.chunks)} model chunks, but {self._first.path} "
                    f"has {len(self._first.chunks)}"
                )
            for chunk, found in enumerate(file.chunks):
                check_tensors(
                    file.path,
                    {name: tuple(tensor.shape) for name, tensor in found.items()},
                    {
                        tensor.flat_name: tensor.shard_shape(self._directory.tp)
                        for tensor in expected
                        if (tensor.pp_rank, tensor.chunk) == (pp_rank, chunk)
                    },
                )
        for tensor in expected:
            dtypes = {shard.dtype for shard in self._shards(tensor)}
            if len(dtypes) > 1:
                raise MismatchError(
                    f"{self.source}: {tensor.flat_name!r} differs in dtype from rank to rank"
                )

    def _shards(self, tensor: LegacyTensor) -> list[Tensor]:
        """Returns the shards of all tensor-parallel ranks, in rank order."""
        return [
            self._files[tp_rank, tensor.pp_rank].chunks[tensor.chunk][tensor.flat_name]
            for tp_rank in range(self._directory.tp)
        ]
