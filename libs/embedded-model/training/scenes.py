"""The world the model learns: one flat shape on a flat background, with a caption in English or Chinese.

Everything that the judge needs (palette, outlines, positions) is written to ../scenes.json, and the captions that are
kept out of training, with their seeds, to ../heldout.json.  Run `python scenes.py` to write both.
"""
import hashlib
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HOME = Path(__file__).resolve().parent.parent
NATIVE_SIDE_PX = 128
SUPERSAMPLING = 4
HELD_OUT_SHARE = 10  # one colour/shape/background triple in ten is never shown in training
HELD_OUT_PER_LANGUAGE = 240

# Colours are far apart in RGB, so that "nearest palette colour" is a fair question to ask of a picture.
PALETTE = {
    "red": (220, 30, 35),
    "orange": (255, 140, 0),
    "yellow": (250, 225, 50),
    "green": (30, 150, 60),
    "cyan": (60, 205, 225),
    "blue": (35, 70, 215),
    "purple": (135, 45, 180),
    "pink": (255, 150, 195),
    "black": (15, 15, 15),
    "white": (248, 248, 248),
}
COLOURS_ZH = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "cyan": "青色",
    "blue": "蓝色", "purple": "紫色", "pink": "粉色", "black": "黑色", "white": "白色",
}
SHAPES_ZH = {
    "circle": ["圆形", "圆"],
    "square": ["正方形", "方块"],
    "triangle": ["三角形"],
    "star": ["五角星", "星星"],
    "heart": ["心形", "爱心"],
    "ring": ["圆环"],
    "cross": ["十字", "十字形"],
}
# Half of the longer side of the shape's box, as a share of the picture's shorter side: (least, most).
SIZES = {"small": (0.142, 0.158), "medium": (0.208, 0.228), "large": (0.292, 0.315)}
SIZES_EN = {"small": ["small", "little", "tiny"], "medium": ["", "", "medium"], "large": ["large", "big", "huge"]}
SIZES_ZH = {"small": ["小", "小小的"], "medium": ["", "", "中等的"], "large": ["大", "大大的"]}
# Column and row of the box centre: -1, 0 or 1.
POSITIONS = {
    "center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1),
    "top left": (-1, -1), "top right": (1, -1), "bottom left": (-1, 1), "bottom right": (1, 1),
}
POSITIONS_EN = {
    "center": ["", "in the center", "in the middle"],
    "left": ["on the left", "at the left"],
    "right": ["on the right", "at the right"],
    "top": ["at the top"],
    "bottom": ["at the bottom"],
    "top left": ["at the top left", "in the top left corner"],
    "top right": ["at the top right", "in the top right corner"],
    "bottom left": ["at the bottom left", "in the bottom left corner"],
    "bottom right": ["at the bottom right", "in the bottom right corner"],
}
POSITIONS_ZH = {
    "center": ["", "中间", "正中央"],
    "left": ["左边", "左侧"],
    "right": ["右边", "右侧"],
    "top": ["上方", "顶部"],
    "bottom": ["下方", "底部"],
    "top left": ["左上角"],
    "top right": ["右上角"],
    "bottom left": ["左下角"],
    "bottom right": ["右下角"],
}
COMMAS_ZH = [",", "\uff0c"]  # the ASCII one and the full-width one
OFFSET = 0.26  # how far a box centre lies from the middle, as a share of the side it is measured along
MARGIN = 0.025  # free border between a shape and the edge of the picture
JITTER = 0.016  # what the seed, and not the caption, decides about the place


def _circle(radius: float) -> list[tuple[float, float]]:
    return [(radius * math.cos(2 * math.pi * k / 48), radius * math.sin(2 * math.pi * k / 48)) for k in range(48)]


def _star() -> list[tuple[float, float]]:
    points = []
    for k in range(10):
        radius = 1.0 if k % 2 == 0 else 0.48
        points.append((radius * math.sin(math.pi * k / 5), -radius * math.cos(math.pi * k / 5)))
    return points


def _heart() -> list[tuple[float, float]]:
    points = []
    for k in range(48):
        t = 2 * math.pi * k / 48
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x, -y))
    return points


def _cross() -> list[tuple[float, float]]:
    a = 0.34
    return [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]


def _fit(outlines: list[list[tuple[float, float]]]) -> list[np.ndarray]:
    """Centres the box of the outlines on 0 and scales its longer half side to 1."""
    first = np.array(outlines[0])
    low, high = first.min(0), first.max(0)
    return [(np.array(o) - (low + high) / 2) / ((high - low).max() / 2) for o in outlines]


# The first outline is filled, a second one is a hole.  y points down.
OUTLINES = {
    "circle": _fit([_circle(1.0)]),
    "square": _fit([[(-1, -1), (1, -1), (1, 1), (-1, 1)]]),
    "triangle": _fit([[(0, -1), (math.sqrt(3) / 2, 0.5), (-math.sqrt(3) / 2, 0.5)]]),
    "star": _fit([_star()]),
    "heart": _fit([_heart()]),
    "ring": _fit([_circle(1.0), _circle(0.5)]),
    "cross": _fit([_cross()]),
}


@dataclass(frozen=True)
class Scene:
    colour: str
    shape: str
    background: str
    size: str
    position: str
    background_stated: bool
    centre_x: float  # shares of the width and the height
    centre_y: float
    half_box: float  # share of the shorter side


def is_held_out(colour: str, shape: str, background: str) -> bool:
    digest = hashlib.md5(f"{colour}/{shape}/{background}".encode()).hexdigest()
    return int(digest, 16) % HELD_OUT_SHARE == 0


def default_background(colour: str) -> str:
    """What a caption that names no background means."""
    return "black" if colour == "white" else "white"


def draw_scene(rng: random.Random, held_out: bool = False, width_px: int = NATIVE_SIDE_PX, height_px: int = NATIVE_SIDE_PX) -> Scene:
    while True:
        colour, shape = rng.choice(list(PALETTE)), rng.choice(list(OUTLINES))
        stated = held_out or rng.random() > 0.12
        background = rng.choice(list(PALETTE)) if stated else default_background(colour)
        if background != colour and is_held_out(colour, shape, background) == held_out:
            break
    size = rng.choice(list(SIZES))
    position = "center" if rng.random() < 0.2 else rng.choice(list(POSITIONS))
    half_box = rng.uniform(*SIZES[size])
    short = min(width_px, height_px)
    centre = []
    for side, step in zip((width_px, height_px), POSITIONS[position]):
        reach = min(OFFSET, 0.5 - MARGIN - half_box * short / side)
        limit = 0.5 - MARGIN / 2 - half_box * short / side
        place = step * reach + rng.uniform(-JITTER, JITTER)
        centre.append(0.5 + max(-limit, min(limit, place)))
    return Scene(colour, shape, background, size, position, stated, centre[0], centre[1], half_box)


def pastel(rgb: tuple[int, int, int], strength: float) -> tuple[int, int, int]:
    """Up to six tenths of the way to white."""
    return tuple(round(c + (255 - c) * 0.6 * strength) for c in rgb)


def render(scene: Scene, width_px: int = NATIVE_SIDE_PX, height_px: int = NATIVE_SIDE_PX, pastel_strength: float = 0.0) -> np.ndarray:
    """RGB bytes [height, width, 3]; edges are smoothed by drawing four times as large and averaging."""
    n = SUPERSAMPLING
    mask = Image.new("L", (width_px * n, height_px * n), 0)
    pen = ImageDraw.Draw(mask)
    scale = scene.half_box * min(width_px, height_px) * n
    middle = np.array([scene.centre_x * width_px * n, scene.centre_y * height_px * n])
    for outline, fill in zip(OUTLINES[scene.shape], (255, 0)):
        # PIL counts the centre of a pixel as a whole number, the scene counts its corner so.
        pen.polygon([tuple(p) for p in outline * scale + middle - 0.5], fill=fill)
    cover = np.asarray(mask.reduce(n), np.float32)[..., None] / 255
    front, back = (np.array(pastel(PALETTE[c], pastel_strength), np.float32) for c in (scene.colour, scene.background))
    return np.round(front * cover + back * (1 - cover)).astype(np.uint8)


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeio" else f"a {words}"


def _join(*parts: str) -> str:
    return " ".join(p for p in parts if p)


def caption_en(rng: random.Random, scene: Scene, long: bool = False) -> str:
    place = rng.choice(POSITIONS_EN[scene.position])
    noun = _join(rng.choice(SIZES_EN[scene.size]), scene.colour, scene.shape)
    thing = _join(_article(noun), place)
    ground = _article(f"{scene.background} background")
    if long:
        place = place or "in the center"
        return rng.choice([
            f"A simple flat picture in plain colours that shows {_article(noun)} {place} and nothing else, painted on a plain {scene.background} background.",
            f"This is a clean and simple drawing with only one thing in it: {_article(noun)}. It is {place}. The whole background is {scene.background}.",
            f"Please draw a simple picture for me. There should be {_article(noun)} {place}, and the whole background should be plain {scene.background}.",
        ])
    if not scene.background_stated:
        text = rng.choice([thing, thing, _join(noun, place), f"draw {thing}"])
    else:
        text = rng.choice([
            f"{thing} on {ground}",
            f"{thing} on {ground}",
            f"{thing} on {scene.background}",
            f"{_join(noun, place)}, {scene.background} background",
            f"{ground} with {thing}",
            f"draw {thing} on {ground}",
            f"{_article(noun)} on {ground}" + (f", {place}" if place else ""),
        ])
    if rng.random() < 0.25:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.15:
        text += "."
    return text


def caption_zh(rng: random.Random, scene: Scene, long: bool = False) -> str:
    colour, ground = COLOURS_ZH[scene.colour], COLOURS_ZH[scene.background]
    comma = rng.choice(COMMAS_ZH)
    place = rng.choice(POSITIONS_ZH[scene.position])
    noun = rng.choice(SIZES_ZH[scene.size]) + colour + rng.choice(["", "的"]) + rng.choice(SHAPES_ZH[scene.shape])
    if long:
        place = place or "正中央"
        return rng.choice([
            f"请帮我画一幅简单的图画{comma}画面里只有一个{noun}{comma}它的位置在{place}{comma}整个背景都是{ground}的{comma}没有其他的东西。",
            f"这是一幅干净简单的图画{comma}整个背景都是{ground}的{comma}在画面的{place}有一个{noun}{comma}除此之外没有其他的东西。",
        ])
    if not scene.background_stated:
        text = rng.choice([f"{place}有一个{noun}", f"一个{noun}在{place}"]) if place else rng.choice([noun, f"一个{noun}", f"画一个{noun}"])
    elif place:
        text = rng.choice([
            f"{ground}背景{place}的{noun}",
            f"{ground}背景{comma}{place}有一个{noun}",
            f"一个{noun}在{ground}背景的{place}",
            f"{place}有一个{noun}{comma}{ground}背景",
        ])
    else:
        text = rng.choice([f"{ground}背景上的{noun}", f"{ground}背景上有一个{noun}", f"一个{noun}{comma}{ground}背景", f"画一个{noun}{comma}{ground}背景"])
    if rng.random() < 0.12:
        text += "。"
    return text


CAPTIONS = {"en": caption_en, "zh": caption_zh}


def write_scenes() -> None:
    body = {
        "nativeSidePx": NATIVE_SIDE_PX,
        "palette": {k: list(v) for k, v in PALETTE.items()},
        "shapes": {k: [[[round(float(x), 5), round(float(y), 5)] for x, y in o] for o in v] for k, v in OUTLINES.items()},
        "sizes": {k: list(v) for k, v in SIZES.items()},
        "positions": {k: list(v) for k, v in POSITIONS.items()},
        "offset": OFFSET,
        "margin": MARGIN,
    }
    (HOME / "scenes.json").write_text(json.dumps(body, separators=(",", ":")) + "\n")


def write_held_out() -> None:
    rows = []
    for language, caption in CAPTIONS.items():
        rng = random.Random(f"held-out {language}")
        seen: set[str] = set()
        while len(seen) < HELD_OUT_PER_LANGUAGE:
            scene = draw_scene(rng, held_out=True)
            text = caption(rng, scene, long=rng.random() < 0.1)
            if text in seen:
                continue
            seen.add(text)
            rows.append({
                "caption": text, "language": language, "colour": scene.colour, "background": scene.background,
                "shape": scene.shape, "position": scene.position, "size": scene.size, "seed": 1000 + len(rows),
            })
    lines = ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in rows)
    (HOME / "heldout.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    write_scenes()
    write_held_out()
