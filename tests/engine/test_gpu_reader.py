"""The GPU reader against NVML stand-ins: no driver, two cards, a hot and full one, and one that reports little."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from acrf_engine.protocol import Hardware
from acrf_engine.run.hardware import NO_GPU, SLOWDOWNS, GpuReader, fitted, sample
from acrf_engine.run.wire import MAX_EVENT_BYTES, encode, from_wire, to_wire
from tests.nvml import GIB, Nvml, card


def test_two_cards_are_read_in_bytes_degrees_percent_and_watts() -> None:
    first, second = GpuReader(Nvml(card("RTX 4090", 17 * GIB, 66), card("RTX 3090", 24 * GIB, 91))).devices()
    assert (first.name, first.memory_used, first.memory_total) == ("RTX 4090", 17 * GIB, 24 * GIB)
    assert (first.temperature, first.utilisation, first.power, first.power_limit) == (66, 97, 412.5, 450.0)
    assert (second.index, second.memory_used, second.temperature) == (1, 24 * GIB, 91)


def test_what_a_card_does_not_support_is_none_and_the_rest_is_there() -> None:
    (device,) = GpuReader(Nvml({"nvmlDeviceGetName": b"Tesla M40", "nvmlDeviceGetTemperature": 50})).devices()
    assert (device.name, device.temperature) == ("Tesla M40", 50)
    assert (device.memory_used, device.utilisation, device.power) == (None, None, None)


def test_a_card_that_answers_nothing_still_has_its_line() -> None:
    (device,) = GpuReader(Nvml({})).devices()
    assert device.name == "GPU 0"


def test_a_machine_without_a_driver_says_so_in_a_sentence() -> None:
    reader = GpuReader(Nvml(init_error="NVML Shared Library Not Found"))
    assert reader.devices() == []
    assert reader.note == NO_GPU
    assert sample(reader, None).note == NO_GPU


def test_a_broken_driver_is_named_and_not_taken_for_no_gpu() -> None:
    reader = GpuReader(Nvml(init_error="Driver/library version mismatch"))
    assert "Driver/library version mismatch" in reader.note


def test_a_sample_tells_the_memory_of_the_machine() -> None:
    hardware = sample(GpuReader(Nvml()), None)
    assert hardware.ram_total is not None
    assert hardware.ram_used is not None
    assert 0 < hardware.ram_used < hardware.ram_total


def test_clocks_are_read_in_mhz_beside_the_highest_the_card_can_do() -> None:
    (device,) = GpuReader(Nvml(card("RTX 4090", 17 * GIB, 66))).devices()
    assert (device.clock_sm, device.clock_sm_max) == (2520, 3105)
    assert (device.clock_memory, device.clock_memory_max) == (10_251, 10_501)


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x00, []),
        (0x01, []),  # idle
        (0x100, []),
        (0x04, ["power limit"]),
        (0x20, ["too hot"]),
        (0x08 | 0x40 | 0x20, ["too hot"]),
        (0x08, ["hardware protection"]),
        (0x08 | 0x80 | 0x04, ["power supply brake", "power limit"]),
        (0x02 | 0x01, ["clock limit that was set"]),
        (0x8000_0000_0000, []),  # a reason of a driver to come
    ],
)
def test_what_slows_a_card_is_told_in_words_the_gravest_first(bits: int, words: list[str]) -> None:
    (device,) = GpuReader(Nvml(card("RTX 4090", 17 * GIB, 66, slowed=bits))).devices()
    assert device.slowed == words


def test_an_older_driver_answers_under_the_older_name() -> None:
    older = {"nvmlDeviceGetName": "Tesla T4", "nvmlDeviceGetCurrentClocksThrottleReasons": 0x24}
    assert GpuReader(Nvml(older)).devices()[0].slowed == ["too hot", "power limit"]


def test_an_older_pynvml_without_the_newer_calls_still_reads_the_rest() -> None:
    class Older(Nvml):
        def __getattr__(self, name: str) -> Any:
            if "Clock" in name:
                raise AttributeError(name)
            return super().__getattr__(name)

    (device,) = GpuReader(Older(card("RTX 4090", 17 * GIB, 66))).devices()
    assert (device.temperature, device.clock_sm, device.slowed) == (66, None, None)


def bytes_of(hardware: Hardware) -> int:
    return len(encode(to_wire(replace(hardware, seq=10**12, time=1_790_000_000.123456))).encode())


def crowd(count: int) -> Hardware:
    everything = sum(SLOWDOWNS)
    name = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"
    return sample(GpuReader(Nvml(*(card(name, 23 * GIB + n, 91, everything) for n in range(count)))), None, 1e6 + 1 / 3)


def test_a_sample_of_eight_cards_is_one_event_with_all_its_readings() -> None:
    hardware = crowd(8)
    assert bytes_of(hardware) < MAX_EVENT_BYTES
    assert all(None not in (device.clock_sm, device.power_limit) for device in hardware.devices)
    usual = [replace(device, slowed=["too hot", "power limit"]) for device in hardware.devices]
    assert fitted(replace(hardware, devices=usual)).devices == usual


@pytest.mark.parametrize("count", [9, 12, 16])
def test_a_sample_of_more_cards_leaves_out_the_least_wanted_and_stays_one_event(count: int) -> None:
    hardware = crowd(count)
    assert bytes_of(hardware) < MAX_EVENT_BYTES
    assert len(hardware.devices) == count
    assert all(device.memory_used and device.temperature == 91 and device.power for device in hardware.devices)


def test_samples_that_an_older_version_stored_still_read() -> None:
    old = {"index": 0, "name": "RTX 4090", "memory_used": 1, "memory_total": 2, "temperature": 60}
    event = from_wire({"type": "hardware", "seq": 3, "time": 1.0, "devices": [old]})
    assert isinstance(event, Hardware)
    assert event.devices[0].temperature == 60
    assert (event.devices[0].clock_sm, event.devices[0].slowed) == (None, None)


def test_clocks_and_reasons_arrive_over_the_wire() -> None:
    hardware = sample(GpuReader(Nvml(card("RTX 4090", 17 * GIB, 66, slowed=4))), None)
    assert from_wire(json.loads(encode(to_wire(hardware)))) == hardware
