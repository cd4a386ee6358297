"""One picture of labelled rows of images."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SCALE = 2
MARGIN = 8
LABEL = 190
GROUP_GAP = 12


def draw_sheet(rows: list[tuple[str, np.ndarray]], title: str) -> np.ndarray:
    """uint8 picture `[h, w, 3]`: a title, and a row for each (label, uint8 images `[N, H, W, C]`), images enlarged.

    A label has one or two lines; a wider gap parts rows whose first words differ.
    """
    _, height, width, _ = rows[0][1].shape
    count = max(len(images) for _, images in rows)
    cell_h, cell_w = height * SCALE, width * SCALE
    groups = [label.split()[0] for label, _ in rows]
    tops, top = [], 34 + MARGIN
    for index in range(len(rows)):
        top += GROUP_GAP if index and groups[index] != groups[index - 1] else 0
        tops.append(top)
        top += cell_h + 4
    sheet = Image.new("RGB", (LABEL + count * (cell_w + 4) + MARGIN, top + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(size=17), ImageFont.load_default(size=15)
    pen.text((MARGIN, MARGIN), title, fill="black", font=large)
    for (label, images), place in zip(rows, tops, strict=True):
        lines = label.split("\n")
        pen.text((MARGIN, place + cell_h / 2), lines[0], fill="black", font=large, anchor="ls")
        pen.text((MARGIN, place + cell_h / 2 + 4), "\n".join(lines[1:]), fill=(90, 90, 90), font=small)
        for column, pixels in enumerate(images):
            grey = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
            image = Image.fromarray(grey).resize((cell_w, cell_h), Image.Resampling.BICUBIC)
            sheet.paste(image, (LABEL + column * (cell_w + 4), place))
    return np.asarray(sheet)
