"""The config keys of what is trained on: sources, regularisation set, and how pictures become batches."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from acrf_engine.config_group import FOLDER, Group

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

Side = Annotated[int, Field(ge=32, le=4096, multiple_of=16)]
Weight = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class DatasetSource(Group):
    """One folder of pictures. A picture's caption is the text file beside it, else its entry in a captions file, else
    `default_caption`.
    """

    path: str
    """Folder of pictures (png, jpg, jpeg, webp, bmp), sub-folders included."""
    repeats: int = Field(1, ge=1, le=1000)
    """How often each picture of this folder is seen in one epoch."""
    weight: Weight = 1.0
    """Factor of the loss of this folder's pictures."""
    resolution: Side | list[Side] | None = None
    """Side of the training size, in the place of the run's `resolution`; of several, a picture is seen at each one that
    it fills.
    """
    caption_extension: str = Field(".txt", pattern=r"^\.[A-Za-z0-9_.-]{1,32}$")
    """Suffix of the text files beside the pictures (`photo.jpg` -> `photo.txt`)."""
    captions: str = ""
    """File with the captions of the folder (.jsonl or .csv: `file_name` and `text` or `caption`); empty: every
    metadata.jsonl or metadata.csv in it, as in Hugging Face's imagefolder.
    """
    default_caption: str = Field("", max_length=4000)
    """Caption of pictures that have none."""
    prefix: str = Field("", max_length=4000)
    """Put before every caption of this folder, and after the trigger word."""
    masks: str = ""
    """Where the loss counts: `alpha` (the pictures' own transparency), or a folder of masks with the names of the
    pictures, white where it counts; empty: everywhere.
    """
    mask_min_weight: float = Field(0.0, ge=0, lt=1, allow_inf_nan=False)
    """Weight of what a mask leaves out; what it keeps has 1."""

    @field_validator("resolution")
    @classmethod
    def _sizes_differ(cls, resolution: int | list[int] | None) -> int | list[int] | None:
        if isinstance(resolution, list) and (not resolution or len(set(resolution)) < len(resolution)):
            raise ValueError(f"expected different sizes, such as [512, 768], got {resolution} (give each once)")
        return resolution

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        if not self.masks and self.mask_min_weight:
            raise ValueError("mask_min_weight has no effect without masks (set masks, or remove it)")
        if self.captions and not re.search(r"\.(jsonl|csv)$", self.captions, re.IGNORECASE):
            raise ValueError(f"captions: expected a .jsonl or .csv file, got {self.captions!r}")
        return self

    def resolutions(self) -> tuple[int, ...]:
        """Sides of its training sizes; empty where the run's holds."""
        if self.resolution is None:
            return ()
        return (self.resolution,) if isinstance(self.resolution, int) else tuple(self.resolution)


class RegularisationConfig(Group):
    """Pictures of the class that the subject belongs to, mixed in so that the class is not forgotten."""

    path: str = Field("", json_schema_extra=FOLDER)
    """Folder of pictures and captions; empty: none. The trigger word is not put before these captions."""
    ratio: float = Field(1.0, gt=0, le=100, allow_inf_nan=False)
    """How many are seen in one epoch for each training picture; of a larger folder others come in every epoch."""
    weight: Weight = 1.0
    """Factor of their loss."""
    default_caption: str = Field("", max_length=4000)
    """Caption of pictures that have none, the name of the class for example."""

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> Self:
        if not self.path:
            given = sorted(self.model_fields_set & {"ratio", "weight", "default_caption"})
            changed = [name for name in given if getattr(self, name) != type(self).model_fields[name].default]
            if changed:
                raise ValueError(f"{', '.join(changed)} without effect where path is empty (give a folder)")
        return self

    def source(self) -> DatasetSource | None:
        """The folder as a source; None where there is none."""
        if not self.path:
            return None
        return DatasetSource(path=self.path, default_caption=self.default_caption, weight=self.weight)


class DataConfig(Group):
    """What a batch is made of, and by whom."""

    num_workers: int = Field(0, ge=0, le=16)
    """Loader processes that put batches together ahead of the training loop; 0: the training process does it."""
    flip: bool = False
    """Mirror each picture with probability 1/2; latents are cached both ways."""
    caption_dropout: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    """Share of the pictures that are trained on the embedding of the empty prompt in the place of their caption."""
    upscale: bool = False
    """Enlarge pictures that are smaller than the training size; else they train in smaller buckets that they fill."""
