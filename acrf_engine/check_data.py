"""Preflight of the data: what every source gives, at which sizes it trains, and what people should know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from acrf_engine.config import DatasetSource, RunConfig, dataset_folder
from acrf_engine.data import holdout
from acrf_engine.data.buckets import fills
from acrf_engine.data.errors import printable
from acrf_engine.data.mixture import batch_sizes, epoch_counts, placed
from acrf_engine.data.scan import Picture, scan

if TYPE_CHECKING:
    from acrf_engine.check import Report

MOST_NAMES = 20
TOKEN_LETTERS, TEMPLATE_TOKENS = 3, 16
"""Fewest letters of a caption that a token stands for, on average, and tokens of the chat template around it."""


def look_at_data(config: RunConfig, report: Report) -> None:
    """Fill in what the data set gives. Raises DataError for what would stop the run."""
    sources = [source.model_copy(update={"path": str(dataset_folder(source))}) for source in config.sources()]
    regularisation = config.regularisation.source()
    found = scan(sources, config.trigger, regularisation=regularisation)
    report.pictures = len(found.pictures)
    report.without_caption = sum(not picture.has_caption_file for picture in found.pictures)
    report.uncaptioned = [printable(p.path.name) for p in found.pictures if not p.has_caption_file][:MOST_NAMES]
    report.left_out = [{"path": printable(item.path), "reason": item.reason} for item in found.rejected]
    report.notes += found.notices
    letters = max((len(picture.caption) for picture in found.pictures), default=0)
    report.caption_tokens = letters // TOKEN_LETTERS + TEMPLATE_TOKENS
    held_out = holdout.choose(found.pictures, config.validation.holdout, config.seed)
    report.held_out = len(held_out)
    examples = placed(found.pictures, report.resolution, config.data.upscale)
    trained = [(picture, size) for picture, size in examples if picture.sha256 not in held_out]
    for _, (width, height) in trained:
        name = f"{width}x{height}"
        report.buckets[name] = report.buckets.get(name, 0) + 1
    counts = epoch_counts(examples, config.regularisation.ratio, held_out)
    lengths = batch_sizes(counts, config.global_batch)
    report.micro_batches_per_epoch = len(lengths)
    every = [*sources, *([regularisation] if regularisation is not None else [])]
    report.sources = [
        _source(source, [picture for picture in found.pictures if picture.source == number])
        for number, source in enumerate(every)
    ]
    if regularisation is not None:
        report.sources[-1] |= {"regularisation": True, "ratio": config.regularisation.ratio}
    if silent := sum(not picture.caption for picture in found.pictures):
        report.notes.append(
            f"{silent} pictures have no caption: they train on the empty prompt "
            "(add .txt files, a trigger, or a default_caption)"
        )
    _note_sizes(config, report, found.pictures)
    if (short := sum(length < config.global_batch for length in lengths)) and config.global_batch > 1:
        report.notes.append(
            f"{short} of {len(lengths)} micro-batches an epoch are short, since pictures of one batch share a size; "
            "their loss counts by their number of pictures, so that every picture counts the same"
        )


def _source(source: DatasetSource, pictures: list[Picture]) -> dict[str, Any]:
    """What a source gives, for the JSON and for people."""
    captions = Counter(picture.caption_from for picture in pictures)
    found = {
        "path": printable(source.path),
        "pictures": len(pictures),
        "repeats": source.repeats,
        "weight": source.weight,
        "captions": dict(captions.most_common()),
    }
    if source.masks:
        found["masks"] = sum(picture.mask is not None for picture in pictures)
    if source.resolutions():
        found["resolutions"] = list(source.resolutions())
    return found


def _note_sizes(config: RunConfig, report: Report, pictures: Sequence[Picture]) -> None:
    for side in sorted(
        {side for picture in pictures for side in picture.resolutions if side > min(picture.resolutions)}
    ):
        of_side = [picture for picture in pictures if side in picture.resolutions]
        if lacking := [p for p in of_side if not config.data.upscale and not fills(p.width, p.height, side)]:
            report.notes.append(
                f"{len(lacking)} of {len(of_side)} pictures do not fill {side} and are not seen at it "
                "(data.upscale: true enlarges)"
            )
    small = [
        picture.path
        for picture in pictures
        if not fills(picture.width, picture.height, min(picture.resolutions or (report.resolution,)))
    ]
    if not small:
        return
    names = ", ".join(printable(path.name) for path in small[:5]) + (" ..." if len(small) > 5 else "")
    they = f"{len(small)} picture{'s do' if len(small) > 1 else ' does'} not fill the training size"
    if config.data.upscale:
        report.notes.append(f"{they} and will be enlarged: {names}")
    else:
        report.notes.append(f"{they} and will train in smaller buckets (data.upscale: true enlarges): {names}")


def source_line(source: dict[str, Any]) -> str:
    """One source for people: where it is, what it gives, and how it counts."""
    captions = ", ".join(f"{number} from {origin}" for origin, number in source["captions"].items())
    count = source["pictures"]
    parts = [f"{count} picture{'' if count == 1 else 's'}", f"captions: {captions or 'none'}"]
    if source.get("regularisation"):
        parts.insert(1, f"regularisation, {source['ratio']:g} for each training picture")
    elif source["repeats"] > 1:
        parts.append(f"{source['repeats']} times an epoch")
    if source["weight"] != 1:
        parts.append(f"weight {source['weight']:g}")
    if "masks" in source:
        parts.append(f"{source['masks']} mask{'' if source['masks'] == 1 else 's'}")
    if "resolutions" in source:
        parts.append("at " + ", ".join(map(str, source["resolutions"])))
    return f"{source['path']}: " + "; ".join(parts)
