"""Files of pretrained networks: what is read, what is refused, and that nothing in them is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import subprocess
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import headstart as hs
from bench.agreement import edm_oracle as oracle
from bench.agreement import edm_pickle
from headstart.adapters import edm
from headstart.adapters.edm import unpickle

TINY = {"model_type": "SongUNet", "model_channels": 4, "channel_mult": [1], "num_blocks": 1}
CASE = oracle.Case("VPPrecond", {"img_resolution": 4, "img_channels": 3, **TINY})


class Reduced:
    """An object that is saved as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class Stranger:
    """An object of a library that EDM's files do not use."""


def save(folder: Path, value: Any) -> Path:
    return edm_pickle.save(folder / "net.pkl", value)


def refuse(path: Path, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        edm.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_whole_training_files_are_read(protocol: int, tmp_path: Path) -> None:
    loss = edm_pickle.Persistent("EDMLoss", P_mean=np.float64(-1.2), weights=np.arange(3.0, dtype=np.float32))
    encoder = edm_pickle.Persistent("StabilityVAEEncoder", scale=np.float32([1, 2]), _vae=None)
    parts = {"ema": edm_pickle.network(CASE), "loss_fn": loss, "encoder": encoder, "augment_pipe": None}
    with edm_pickle.named():
        data = pickle.dumps(edm_pickle.EasyDict(parts, dataset_kwargs=OrderedDict(path="x.zip")), protocol)
    path = tmp_path / "net.pkl"
    path.write_bytes(data)
    found = unpickle.read(path)
    assert found["loss_fn"].state["P_mean"] == -1.2
    assert found["encoder"].state["scale"].values.tolist() == [1, 2]
    assert edm.load(path).shape == (3, 4, 4)


def test_no_call_is_made(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for function, name in ((os.system, "system"), (subprocess.call, "subprocess.call"), (eval, "builtins.eval")):
        path = save(tmp_path, {"ema": Reduced(function, f"touch {marker}")})
        refuse(path, f"asks for .*{name}.*nothing of the file was run")
    assert not marker.exists()


def test_calls_inside_a_tensors_bytes_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    inner = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    inner += pickle.dumps(Reduced(os.system, f"touch {marker}"), 2)
    refuse(save(tmp_path, {"ema": Reduced(torch.storage._load_from_bytes, inner)}), "asks for .*system")
    assert not marker.exists()


def test_embedded_source_is_not_run(tmp_path: Path) -> None:
    path = save(tmp_path, {"ema": edm_pickle.network(CASE)})
    assert edm_pickle.SOURCE.encode() in path.read_bytes()
    assert edm.load(path).classes is None


@pytest.mark.parametrize("target", [torch._utils._rebuild_parameter, edm_pickle._reconstruct_persistent_obj])
def test_functions_cannot_be_changed(target: Callable[..., Any], tmp_path: Path) -> None:
    """A pickle may give attributes to whatever is on its stack."""
    module = target.__module__.encode()
    build = b"\x80\x02c%s\n%s\n}X\x01\x00\x00\x00aK\x01sb." % (module, target.__name__.encode())
    path = tmp_path / "net.pkl"
    path.write_bytes(build)
    refuse(path, "gives attributes to a function")


@pytest.mark.parametrize(
    "name", ["collections\nOrderedDict", "torch.nn.modules.container\nModuleDict", "numpy\nndarray"]
)
def test_classes_cannot_be_changed(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(b"\x80\x02c%s\nN}X\x05\x00\x00\x00valueK\x01s\x86b." % name.encode())
    refuse(path, "net.pkl")
    assert not any(hasattr(kind, "value") for kind in (OrderedDict, unpickle.Container, unpickle.Array))


def test_a_tensor_stays_inside_its_memory(tmp_path: Path) -> None:
    memory = torch.arange(4.0)._typed_storage()
    for size, stride, offset in (((5,), (1,), 0), ((4,), (1,), 1), ((2, 2), (3, 1), 0), ((-1,), (1,), 0)):
        view = Reduced(torch._utils._rebuild_tensor_v2, memory, offset, size, stride, False, OrderedDict())
        refuse(save(tmp_path, {"ema": view}), "damaged|a tensor of . numbers on a memory of 4")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = save(tmp_path, {"ema": edm_pickle.network(CASE)}).read_bytes()
    path = tmp_path / "cut.pkl"
    for size in [*range(20), *range(20, len(whole), len(whole) // 20), len(whole) - 1]:
        path.write_bytes(whole[:size])
        refuse(path, "truncated|empty|of another kind")


def test_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = bytearray(save(tmp_path, {"ema": edm_pickle.network(CASE)}).read_bytes())
    dice, path = random.Random(0), tmp_path / "damaged.pkl"
    for _ in range(60):
        data = bytearray(whole)
        data[dice.randrange(2, len(data))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            assert isinstance(edm.load(path), edm.Network)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pkl"
    for data, says in ((b"", "empty"), (b"words\n", "another kind"), (b"PK\x03\x04 and so on", "torch.save")):
        path.write_bytes(data)
        refuse(path, says)
    refuse(save(tmp_path, {"ema": Stranger()}), "asks for .*Stranger")
    refuse(save(tmp_path, {"G_ema": edm_pickle.network(CASE)}), "no network under 'ema', but keys \\['G_ema'\\]")
    refuse(save(tmp_path, [1, 2]), "no network under 'ema', but a list")
    refuse(save(tmp_path, {"ema": edm_pickle.Persistent("Generator")}), "class 'Generator', known are")
    refuse(save(tmp_path, {"ema": edm_pickle.Persistent("EDMPrecond", version=7)}), "format 7; version 6 is read")
    refuse(save(tmp_path, {"ema": edm_pickle.Persistent("EDMPrecond")}), "damaged: KeyError")
    with pytest.raises(FileNotFoundError):
        edm.load(tmp_path / "none.pkl")
    with pytest.raises(TypeError, match="dtype must be"):
        edm.load(path, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "Transformer"}, "model_type must be one of SongUNet, DhariwalUNet, got 'Transformer'"),
        ({"encoder_type": "odd"}, "encoder_type must be one of"),
        ({"depth": 3}, "unexpected keyword argument 'depth'"),
        ({"num_blocks": 2}, "the network lacks"),
        ({"label_dim": 3}, "the network lacks model.map_label.bias and 1 more"),
        ({"model_channels": 8}, "must be floats"),
        ({"model_channels": -1}, "damaged"),
        ({"img_resolution": "4"}, "damaged"),
        ({"beta_d": "steep"}, "beta_d must be a number, got 'steep'"),
    ],
)
def test_arguments_must_fit_the_tensors(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    changed = CASE._replace(arguments={**CASE.arguments, **change})
    refuse(save(tmp_path, {"ema": edm_pickle.network(changed, edm_pickle.tensors(CASE))}), says)


def test_tensors_must_be_those_of_the_network(tmp_path: Path) -> None:
    values = edm_pickle.tensors(CASE)
    extra = {**values, "model.extra": torch.zeros(3)}
    refuse(save(tmp_path, {"ema": edm_pickle.network(CASE, extra)}), "has no place for model.extra")
    name = "model.map_layer0.weight"
    less = {**values, name: values[name][:1]}
    refuse(save(tmp_path, {"ema": edm_pickle.network(CASE, less)}), f"{name} must be floats")


def test_safetensors_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    edm.convert(save(tmp_path, {"ema": edm_pickle.network(CASE)}), path)
    whole = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["headstart"])
    assert (header["class"], header["key"], header["arguments"]) == (CASE.name, "ema", CASE.arguments)
    path.write_bytes(whole[:-7])
    refuse(path, "truncated")
    for change, says in (
        ({"version": 99}, "version 99"),
        ({"class": "Other"}, "class 'Other'"),
        ({"family": "Flow"}, "Flow"),
    ):
        save_file({"a": torch.zeros(1)}, path, {"headstart": json.dumps({**header, **change})})
        refuse(path, says)
    save_file({"a": torch.zeros(1)}, path)
    refuse(path, "not one that headstart saved")
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="holds the family 'edm-network'"):
        hs.load(path)


def nested(depth: int = 60) -> Any:
    """A tuple of 2^depth leaves that takes a few bytes a level."""
    value: Any = "A" * 64
    for _ in range(depth):
        value = (value, value)
    return value


def state(**own: Any) -> dict[str, Any]:
    return {"_parameters": {}, "_buffers": {}, "_modules": {}, "_init_args": (), "_init_kwargs": {}, **own}


def lattice(depth: int) -> edm_pickle.Persistent:
    """Modules that hold the one below twice."""
    child = edm_pickle.Persistent("EDMPrecond", **state())
    for _ in range(depth):
        child = edm_pickle.Persistent("EDMPrecond", **state(_modules={"a": child, "b": child}))
    return child


def cycle() -> edm_pickle.Persistent:
    """A module that is its own child."""
    lists: list[Any] = []
    lists.append(lists)
    return edm_pickle.Persistent("EDMPrecond", **state(_init_kwargs={"img_resolution": lists}))


def named_class(value: Any) -> edm_pickle.Persistent:
    found = edm_pickle.Persistent("EDMPrecond", **state())
    found.meta["class_name"] = value
    return found


BOMBS: dict[str, tuple[Any, str]] = {
    "class name": (named_class(nested()), "an object whose class is a tuple"),
    "long class name": (named_class("x" * 10**6), "holds a network of class 'xxx"),
    "version": (edm_pickle.Persistent("EDMPrecond", version=nested()), "of format a tuple; version 6"),  # type: ignore[arg-type]
    "arguments": (
        edm_pickle.Persistent("EDMPrecond", **state(_init_kwargs={"M": nested()})),
        "nested more than 50 deep",
    ),
    "cycle": (cycle(), "nested more than 50 deep"),
    "modules": (lattice(40), "too many modules"),
    "deep modules": (lattice(60), "too many modules, or nested"),
    "attributes": (Reduced(torch.nn.ModuleList, state=nested()), "attributes are a tuple"),
    "numpy type": (Reduced(np.dtype, nested()), "a numpy array of type a tuple"),
    "long name": (Reduced(edm_pickle.EasyDict, "x" * 10**6), "truncated or damaged"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_value_that_doubles_at_each_level_is_neither_printed_nor_walked(kind: str, tmp_path: Path) -> None:
    value, says = BOMBS[kind]
    path = save(tmp_path, {"ema": value})
    with pytest.raises(ValueError, match=says) as caught:
        edm.load(path)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("opcodes", [b"}%sK\x01s.", b"cbuiltins\nset\n]%sa\x85R.", b"\x8f(%s\x90.", b"(%sK\x01d."])
def test_a_key_that_doubles_at_each_level_is_not_hashed(opcodes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(b"\x80\x04" + opcodes % pickle.dumps(nested(), 3)[2:-1])
    refuse(path, "holds a key that is a tuple")


LIES = {
    "bytes": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",
    "bytearray": b"\x80\x05\x96" + (2**34).to_bytes(8, "little") + b"x.",
    "text": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x.",
    "long": b"\x80\x03\x8b" + (2**31 - 1).to_bytes(4, "little") + b"x.",
    "memo": b"\x80\x02Nr" + (2**31 - 1).to_bytes(4, "little") + b".",
    "instructions": b"\x80\x02)" + b"\x85" * 1_000_001 + b".",
    "digits": b"\x80\x02L" + b"9" * 3_000_000 + b"L\n.",
}


@pytest.mark.parametrize("kind", LIES)
def test_no_instruction_takes_more_than_the_file_has(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(LIES[kind])
    tracemalloc.start()
    try:
        refuse(path, "truncated or damaged|no network under|more than 1,000,000 instructions")
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


def test_a_tensors_memory_is_no_larger_than_its_bytes(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(torch.arange(4.0)._typed_storage(), buffer, _use_new_zipfile_serialization=False)
    assert buffer.getvalue().count(b"K\x04N") == 1  # the number of elements
    lie = buffer.getvalue().replace(b"K\x04N", b"\x8a\x05" + (2**34).to_bytes(5, "little") + b"N")
    refuse(save(tmp_path, {"ema": Reduced(torch.storage._load_from_bytes, lie)}), "damaged .a tensor of 68719476736")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_blocks": 1000}, "num_blocks is 1000 at 1 levels, but the file has"),
        ({"channel_mult": [1] * 900}, "at 900 levels, but the file has"),
        ({"num_blocks": -1, "channel_mult": [1] * 900}, "at 900 levels, but the file has"),
        ({"img_resolution": 2**40}, "img_resolution must be at most 1,048,576"),
        ({"attn_resolutions": [4, 2**70]}, "attn_resolutions must be at most"),
        ({"resample_filter": [1] * 2000}, "too many constructor arguments"),
        ({"model_type": "x" * 10**6}, "model_type must be one of"),
    ],
)
def test_a_network_is_not_built_from_numbers_alone(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    values = edm_pickle.tensors(CASE)
    given = {**CASE.arguments, **change}
    first, *rest = given.items()
    flat = edm_pickle.module(CASE.name, values, _init_args=(first[1],), _init_kwargs=edm_pickle.EasyDict(rest))
    path = save(tmp_path, {"ema": flat})
    with pytest.raises(ValueError, match=says) as caught:
        edm.load(path)
    assert len(str(caught.value)) < 700
    if "resample_filter" not in change:  # the file of safetensors has the same bounds
        header = json.dumps({"format": "headstart", "version": 1, "family": "edm-network", "class": CASE.name} | {
            "arguments": given, "key": "ema"
        })  # fmt: skip
        save_file(values, tmp_path / "net.safetensors", {"headstart": header})
        refuse(tmp_path / "net.safetensors", says)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")])
def test_running_out_of_memory_is_no_damage(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise error

    path = save(tmp_path, {"ema": edm_pickle.network(CASE)})
    for place in ("headstart.io.tensor_file.fresh", "headstart.adapters.edm.file.build"):
        with monkeypatch.context() as patched:
            patched.setattr(place, full)
            with pytest.raises(MemoryError, match=r"net\.pkl: not enough memory"):
                edm.load(path)
    monkeypatch.setattr("headstart.io.bound.available", lambda: 0)
    path.write_bytes(path.read_bytes() + bytes(2**21))
    refuse(path, "GiB of memory")
