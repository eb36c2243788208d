"""What others do, as anchors for `benchmarks.bits`: 8 bits and deflate; pruning, shared values and Huffman codes.

The second is Han, Mao and Dally, "Deep Compression" (ICLR 2016): small weights become zero while the network is
trained, the others of a tensor share a few values, which are trained on, and the places (as gaps) and the values are
Huffman-coded. Both give one byte string with all that decoding needs, and are decoded again.
"""

from __future__ import annotations

import copy
import heapq
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.lenets import Batches, train

State = Mapping[str, Tensor]
GAP_BITS: Final = {2: 5, 4: 8}
"""Of the gaps between weights that are not zero: linear, convolution; as in the paper."""


def pack(header: Any, body: bytes) -> bytes:
    compressed = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    return struct.pack("<H", len(compressed)) + compressed + body


def unpack(data: bytes) -> tuple[Any, bytes]:
    (length,) = struct.unpack_from("<H", data)
    return json.loads(zlib.decompress(data[2 : 2 + length])), data[2 + length :]


# ---- 8 bits and deflate ----------------------------------------------------------------------------------


def eight_bits(state: State) -> bytes:
    """Every tensor in 255 steps of its own, all of them deflated together."""
    steps = {name: float(np.float32(tensor.abs().max() / 127)) for name, tensor in state.items()}
    whole = b"".join(
        torch.round(tensor / steps[name]).to(torch.int8).numpy().tobytes() for name, tensor in state.items()
    )
    return pack([[name, list(tensor.shape), steps[name]] for name, tensor in state.items()], zlib.compress(whole, 9))


def from_eight_bits(data: bytes) -> dict[str, Tensor]:
    header, body = unpack(data)
    whole, start, state = np.frombuffer(zlib.decompress(body), np.int8).copy(), 0, {}
    for name, shape, step in header:
        end = start + int(np.prod(shape))
        state[name] = torch.from_numpy(whole[start:end]).reshape(shape).float() * step
        start = end
    return state


# ---- pruning, shared values, Huffman codes ---------------------------------------------------------------


def pruned(network: nn.Module, batches: Batches, quality: float, epochs: int) -> nn.Module:
    """A copy without the weights below `quality` standard deviations of their tensor, trained on in the meantime.

    The threshold rises during the first half of the training. A weight that was cut stays zero.
    """
    network = copy.deepcopy(network)
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    limits = [quality * weight.detach().std() for weight in weights]
    kept = [torch.ones_like(weight) for weight in weights]

    @torch.no_grad()
    def cut(part: float) -> None:
        for weight, limit, mask in zip(weights, limits, kept, strict=True):
            if part <= 0.5:
                mask.mul_(weight.abs() > 2 * part * limit)
            weight.mul_(mask)

    train(network, batches, epochs, 1e-3, cut)
    return network


def shared(network: nn.Module, batches: Batches, values: int, epochs: int) -> nn.Module:
    """A copy whose weights that are not zero have so many values in each tensor: k-means, then trained on.

    The gradient of a value is the sum over its weights; every step is taken by the values.
    """
    network = copy.deepcopy(network)
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    places = [_clusters(weight.detach(), values) for weight in weights]

    @torch.no_grad()
    def share(part: float) -> None:
        for weight, place in zip(weights, places, strict=True):
            sums = torch.zeros(values + 1).index_add_(0, place.flatten(), weight.flatten())
            means = sums / torch.bincount(place.flatten(), minlength=values + 1).clamp(min=1)
            means[0] = 0
            weight.copy_(means.half().float()[place])

    share(0.0)
    train(network, batches, epochs, 1e-4, share)
    return network


def _clusters(weight: Tensor, values: int, rounds: int = 30) -> Tensor:
    """For each weight the number of its cluster, 0 for zeros: Lloyd from evenly spaced centres, as in the paper."""
    alive = weight[weight != 0]
    centres = torch.linspace(float(alive.min()), float(alive.max()), values)
    for _ in range(rounds):
        near = torch.bucketize(alive, (centres[1:] + centres[:-1]) / 2)
        sums = torch.zeros(values).index_add_(0, near, alive)
        counts = torch.bincount(near, minlength=values)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres).sort().values
    place = torch.bucketize(weight, (centres[1:] + centres[:-1]) / 2) + 1
    return torch.where(weight == 0, torch.zeros_like(place), place)


def huffman_coded(state: State) -> bytes:
    """The state of a network that is pruned and shared; vectors are kept in 16 bits."""
    header: list[list[object]] = []
    streams: list[str] = []
    kept: list[bytes] = []
    for name, tensor in state.items():
        if tensor.dim() < 2:
            header.append([name, list(tensor.shape)])
            kept.append(tensor.half().numpy().tobytes())
            continue
        flat = tensor.flatten().numpy()
        table, symbols = np.unique(flat[flat != 0], return_inverse=True)
        gaps = _gaps(np.flatnonzero(flat), (1 << GAP_BITS[tensor.dim()]) - 1)
        lengths, bits = zip(*(_huffman(each.tolist()) for each in (gaps, symbols)), strict=True)
        header.append([name, list(tensor.shape), len(table), len(gaps), *lengths])
        kept.append(table.astype(np.float16).tobytes())
        streams += bits
    return pack(header, b"".join(kept) + np.packbits(np.array(list("".join(streams)), np.uint8)).tobytes())


def from_huffman_coded(data: bytes) -> dict[str, Tensor]:
    header, body = unpack(data)
    state, tables, start = {}, {}, 0
    for name, shape, *coded in header:
        size = coded[0] if coded else int(np.prod(shape))
        tables[name] = np.frombuffer(body, np.float16, size, start).astype(np.float32)
        start += 2 * size
    bits = iter(np.unpackbits(np.frombuffer(body, np.uint8, offset=start)).tolist())
    for name, shape, *coded in header:
        if not coded:
            state[name] = torch.from_numpy(tables[name]).reshape(shape)
            continue
        _, steps, gap_lengths, value_lengths = coded
        gaps = np.array(_read(bits, gap_lengths, steps))
        longest = (1 << GAP_BITS[len(shape)]) - 1
        flat = np.zeros(int(np.prod(shape)), np.float32)
        ends = np.cumsum(gaps)[gaps < longest] + np.arange(int((gaps < longest).sum()))
        flat[ends] = tables[name][_read(bits, value_lengths, len(ends))]
        state[name] = torch.from_numpy(flat).reshape(shape)
    return state


def _gaps(places: NDArray[np.int64], longest: int) -> NDArray[np.int64]:
    """Zeros before each weight; `longest` stands for so many zeros and no weight."""
    zeros = np.diff(places, prepend=-1) - 1
    found: list[int] = []
    for gap in zeros.tolist():
        found += [longest] * (gap // longest) + [gap % longest]
    return np.array(found, np.int64)


def _huffman(symbols: Sequence[int]) -> tuple[list[int], str]:
    """The lengths of a canonical Huffman code, for the symbols 0 to the largest, and the coded symbols."""
    counts = Counter(symbols)
    tie = count()
    heap = [(number, next(tie), [symbol]) for symbol, number in counts.items()]
    heapq.heapify(heap)
    depth: Counter[int] = Counter(dict.fromkeys(counts, int(len(counts) == 1)))
    while len(heap) > 1:
        (first, _, some), (second, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        depth.update(some + others)
        heapq.heappush(heap, (first + second, next(tie), some + others))
    lengths = [depth[symbol] for symbol in range(max(counts, default=-1) + 1)]
    codes = {symbol: code for code, symbol in _codes(lengths).items()}
    return lengths, "".join(codes[symbol] for symbol in symbols)


def _codes(lengths: Sequence[int]) -> dict[str, int]:
    code, before, found = 0, 0, {}
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        code <<= length - before
        found[f"{code:0{length}b}"] = symbol
        code, before = code + 1, length
    return found


def _read(bits: Iterator[int], lengths: Sequence[int], number: int) -> list[int]:
    codes, found = _codes(lengths), []
    for _ in range(number):
        code = ""
        while code not in codes:
            code += str(next(bits))
        found.append(codes[code])
    return found
