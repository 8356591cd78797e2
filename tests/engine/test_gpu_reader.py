"""The GPU reader against NVML stand-ins: no driver, two cards, a hot and full one, and one that reports little."""

from __future__ import annotations

from acrf_engine.run.hardware import NO_GPU, GpuReader, sample
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
