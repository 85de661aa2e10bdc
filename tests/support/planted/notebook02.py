"""Wrong and right answers to the exercises of notebook 02, how Qwen2-VL sees."""

from planted import Wrong, changed

UNPATCH = """
import torch


def unpatch(patches, rows, columns, merge=2):
    channels, patch = patches.shape[1:3]
    blocks = patches.reshape(rows // merge, columns // merge, merge, merge, channels, patch, patch)
    blocks = blocks.permute(4, 0, 2, 5, 1, 3, 6)
    return blocks.reshape(channels, rows * patch, columns * patch)
"""
ORDER = "permute(4, 0, 2, 5, 1, 3, 6)"
SHAPE = "reshape(rows // merge, columns // merge, merge, merge, channels, patch, patch)"
POSITIONS = """
import torch


def positions(parts):
    start, blocks = 0, []
    for part in parts:
        if isinstance(part, int):
            blocks.append(start + torch.arange(part).expand(3, -1))
            start += part
        else:
            rows, columns = part
            height = torch.arange(rows).repeat_interleave(columns)
            width = torch.arange(columns).repeat(rows)
            blocks.append(start + torch.stack([torch.zeros_like(height), height, width]))
            start += max(rows, columns)
    return torch.cat(blocks, dim=1)
"""
NEXT = "start += max(rows, columns)"
IMAGE = "start + torch.stack([torch.zeros_like(height), height, width])"
TOUCHED = """
def touched_tokens(box, size, resized):
    (left, top, right, bottom), (width, height), (w, h) = box, size, resized
    columns = range(left * w // (28 * width), -(-right * w // (28 * width)))
    rows = range(top * h // (28 * height), -(-bottom * h // (28 * height)))
    return [row * (w // 28) + column for row in rows for column in columns]


def lost(box, size, resized):
    (left, top, right, bottom), (width, height), (w, h) = box, size, resized
    return (right - left) * w < width or (bottom - top) * h < height
"""
NUMBERS = "[row * (w // 28) + column for row in rows for column in columns]"
LOST = "(right - left) * w < width or (bottom - top) * h < height"

PLANTED: dict[str, list[Wrong]] = {
    "02.1": [
        Wrong(
            "the patches row by row, as if nothing were merged",
            changed(
                changed(UNPATCH, SHAPE, "reshape(rows, columns, channels, patch, patch)"),
                ORDER,
                "permute(2, 0, 3, 1, 4)",
            ),
            "another value",
        ),
        Wrong(
            "no permutation", changed(UNPATCH, "blocks = blocks.permute(4, 0, 2, 5, 1, 3, 6)", "pass"), "another value"
        ),
        Wrong(
            "rows and columns of the groups exchanged",
            changed(UNPATCH, ORDER, "permute(4, 1, 2, 5, 0, 3, 6)"),
            "another value",
        ),
        Wrong(
            "rows and columns in the group exchanged",
            changed(UNPATCH, ORDER, "permute(4, 0, 3, 5, 1, 2, 6)"),
            "another value",
        ),
        Wrong("each patch transposed", changed(UNPATCH, ORDER, "permute(4, 0, 2, 6, 1, 3, 5)"), "another value"),
        Wrong("the group inside the pixels", changed(UNPATCH, ORDER, "permute(4, 2, 0, 5, 3, 1, 6)"), "another value"),
        Wrong(
            "the permutation of `my_patches` once more",
            changed(UNPATCH, ORDER, "permute(1, 4, 2, 5, 0, 3, 6)"),
            "another value",
        ),
        Wrong(
            "merge is always 2",
            changed(
                UNPATCH,
                "    channels, patch",
                "    if rows % 2 == columns % 2 == 0:\n        merge = 2\n    channels, patch",
            ),
            "another value",
        ),
        Wrong(
            "rows counted as groups",
            changed(
                UNPATCH, "return blocks", "blocks = blocks.repeat(1, merge, 1, 1, 1, 1, 1)\n    return blocks"
            ).replace(
                "reshape(channels, rows * patch, columns * patch)",
                "reshape(channels, rows * merge * patch, columns * patch)",
            ),
            "return \\(channels, height, width\\)",
        ),
        Wrong(
            "the channels last",
            changed(UNPATCH, "columns * patch)", "columns * patch).permute(1, 2, 0)"),
            "return \\(channels, height, width\\)",
        ),
        Wrong(
            "height and width exchanged",
            changed(UNPATCH, "columns * patch)", "columns * patch).transpose(1, 2)"),
            "return \\(channels, height, width\\)|another value",
        ),
        Wrong(
            "an extra axis for the batch",
            changed(UNPATCH, "columns * patch)", "columns * patch)[None]"),
            "return \\(channels",
        ),
        Wrong(
            "numbers with a point",
            changed(UNPATCH, "columns * patch)", "columns * patch).float()"),
            "type of the values",
        ),
        Wrong("nothing returned", changed(UNPATCH, "return blocks", "blocks"), "return \\(channels"),
        Wrong(
            "the image upside down", changed(UNPATCH, "columns * patch)", "columns * patch).flip(1)"), "another value"
        ),
    ],
    "02.2": [
        Wrong("text goes on after the number of tokens", changed(POSITIONS, NEXT, "start += rows * columns"), "token"),
        Wrong("text goes on after the rows", changed(POSITIONS, NEXT, "start += rows"), "token"),
        Wrong("text goes on after the columns", changed(POSITIONS, NEXT, "start += columns"), "token"),
        Wrong("text goes on after rows and columns", changed(POSITIONS, NEXT, "start += rows + columns - 1"), "token"),
        Wrong("one position too far", changed(POSITIONS, NEXT, "start += max(rows, columns) + 1"), "token"),
        Wrong(
            "the last position of the image again", changed(POSITIONS, NEXT, "start += max(rows, columns) - 1"), "token"
        ),
        Wrong("the smaller side", changed(POSITIONS, NEXT, "start += min(rows, columns)"), "token"),
        Wrong("height and width exchanged", changed(POSITIONS, "height, width])", "width, height])"), "token"),
        Wrong("an image starts at 0", changed(POSITIONS, IMAGE, IMAGE.removeprefix("start + ")), "token"),
        Wrong(
            "time is 0 in images",
            changed(POSITIONS, IMAGE, "torch.stack([torch.zeros_like(height), start + height, start + width])"),
            "token",
        ),
        Wrong(
            "time counts the image tokens",
            changed(POSITIONS, "torch.zeros_like(height)", "torch.arange(rows * columns)"),
            "token",
        ),
        Wrong(
            "the tokens column by column",
            changed(
                changed(POSITIONS, "repeat_interleave(columns)", "repeat(columns)"),
                "torch.arange(columns).repeat(rows)",
                "torch.arange(columns).repeat_interleave(rows)",
            ),
            "token",
        ),
        Wrong("positions start at 1", changed(POSITIONS, "start, blocks = 0, []", "start, blocks = 1, []"), "token"),
        Wrong("each text starts at 0", changed(POSITIONS, "start + torch.arange(part)", "torch.arange(part)"), "token"),
        Wrong("numbers with a point", changed(POSITIONS, "dim=1)", "dim=1).float()"), "int64"),
        Wrong("one row for each token", changed(POSITIONS, "dim=1)", "dim=1).T"), r"\(3, P\)"),
        Wrong("an axis for the batch", changed(POSITIONS, "dim=1)", "dim=1)[:, None]"), r"\(3, P\)"),
        Wrong("only one row for the text", changed(POSITIONS, "dim=1)", "dim=1)[0]"), r"\(3, P\)"),
    ],
    "02.3": [
        Wrong(
            "the box is not resized",
            changed(
                TOUCHED,
                "columns = range(left * w // (28 * width), -(-right * w // (28 * width)))",
                "columns = range(left // 28, -(-right // 28))",
            ),
            "touched_tokens",
        ),
        Wrong(
            "one factor for both sides",
            changed(
                TOUCHED,
                "rows = range(top * h // (28 * height), -(-bottom * h // (28 * height)))",
                "rows = range(top * w // (28 * width), -(-bottom * w // (28 * width)))",
            ),
            "touched_tokens",
        ),
        Wrong(
            "the last column is rounded down",
            changed(TOUCHED, "-(-right * w // (28 * width))", "right * w // (28 * width)"),
            "touched_tokens",
        ),
        Wrong(
            "a shared edge counts on the right",
            changed(TOUCHED, "-(-right * w // (28 * width))", "right * w // (28 * width) + 1"),
            "touched_tokens",
        ),
        Wrong(
            "a shared edge counts below",
            changed(TOUCHED, "-(-bottom * h // (28 * height))", "bottom * h // (28 * height) + 1"),
            "touched_tokens",
        ),
        Wrong(
            "cells that lie inside the box entirely",
            changed(
                TOUCHED,
                "left * w // (28 * width), -(-right * w // (28 * width))",
                "-(-left * w // (28 * width)), right * w // (28 * width)",
            ),
            "touched_tokens",
        ),
        Wrong("patches in place of cells", TOUCHED.replace("28", "14"), "touched_tokens"),
        Wrong(
            "numbered column by column",
            changed(TOUCHED, NUMBERS, "sorted(column * (h // 28) + row for row in rows for column in columns)"),
            "touched_tokens",
        ),
        Wrong(
            "rows in place of columns in the number",
            changed(TOUCHED, "row * (w // 28)", "row * (h // 28)"),
            "touched_tokens",
        ),
        Wrong("always five columns", changed(TOUCHED, "row * (w // 28)", "row * 5"), "touched_tokens"),
        Wrong(
            "pairs, not numbers",
            changed(TOUCHED, NUMBERS, "[(row, column) for row in rows for column in columns]"),
            "touched_tokens",
        ),
        Wrong("a set", changed(TOUCHED, NUMBERS, "set(" + NUMBERS + ")"), "touched_tokens"),
        Wrong(
            "only the cell of the centre",
            changed(
                TOUCHED,
                NUMBERS,
                "[(top + bottom) * h // (56 * height) * (w // 28) + (left + right) * w // (56 * width)]",
            ),
            "touched_tokens",
        ),
        Wrong(
            "only the corners",
            changed(
                TOUCHED,
                NUMBERS,
                "sorted({r * (w // 28) + c for r in (rows[0], rows[-1]) for c in (columns[0], columns[-1])})",
            ),
            "touched_tokens",
        ),
        Wrong("lost only if both sides are", changed(TOUCHED, " or ", " and "), "lost"),
        Wrong("exactly one pixel is lost", changed(TOUCHED, LOST, LOST.replace("<", "<=")), "one pixel is enough"),
        Wrong("only the width", changed(TOUCHED, " or (bottom - top) * h < height", ""), "lost"),
        Wrong(
            "the area in place of the sides",
            changed(TOUCHED, LOST, "(right - left) * (bottom - top) * w * h < width * height"),
            "lost",
        ),
        Wrong(
            "no token is touched, so it is lost",
            changed(TOUCHED, LOST, "not touched_tokens(box, size, resized)"),
            "lost",
        ),
    ],
}

RIGHT: dict[str, list[str]] = {
    "02.1": [
        UNPATCH,
        """
import torch


def unpatch(patches, rows, columns, merge=2):
    channels, patch = patches.shape[1], patches.shape[-1]
    image = patches.new_zeros(channels, rows * patch, columns * patch)
    number = 0
    for top in range(0, rows, merge):
        for left in range(0, columns, merge):
            for y in range(top, top + merge):
                for x in range(left, left + merge):
                    image[:, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch] = patches[number]
                    number += 1
    return image
""",
        """
import torch


def unpatch(patches, rows, columns, merge=2):
    order = torch.arange(rows * columns).view(rows // merge, merge, columns // merge, merge)
    order = order.transpose(1, 2).flatten()  # the row-by-row number of each patch
    plain = torch.empty_like(patches)
    plain[order] = patches
    strips = plain.view(rows, columns, *patches.shape[1:]).unbind(0)
    return torch.cat([torch.cat(strip.unbind(0), dim=2) for strip in strips], dim=1)
""",
        """
import torch


def unpatch(patches, rows, columns, merge=2):
    c, p = patches.shape[1:3]
    x = patches.view(rows // merge, columns // merge, merge, merge, c, p, p)
    return torch.einsum("abmncij->camibnj", x).reshape(c, rows * p, columns * p)
""",
    ],
    "02.2": [
        changed(POSITIONS, NEXT, "start = int(blocks[-1].max()) + 1"),
        """
import torch


def positions(parts):
    triples, start = [], 0
    for part in parts:
        if isinstance(part, int):
            new = [(start + j, start + j, start + j) for j in range(part)]
        else:
            new = [(start, start + y, start + x) for y in range(part[0]) for x in range(part[1])]
        triples += new
        start = max(max(triple) for triple in new) + 1
    return torch.tensor(triples).T
""",
        """
import torch


def positions(parts):
    blocks, start = [], 0
    for part in parts:
        if type(part) is int:
            block = torch.arange(part).repeat(3, 1)
        else:
            y, x = torch.meshgrid(torch.arange(part[0]), torch.arange(part[1]), indexing="ij")
            block = torch.stack([0 * y.flatten(), y.flatten(), x.flatten()])
        blocks.append(block + start)
        start += block.max().item() + 1
    return torch.hstack(blocks)
""",
        """
import torch


def positions(parts):
    sizes = [part if isinstance(part, int) else max(part) for part in parts]
    starts = [sum(sizes[:i]) for i in range(len(parts))]
    columns = []
    for start, part in zip(starts, parts):
        if isinstance(part, int):
            columns.append(torch.stack([torch.arange(start, start + part)] * 3))
        else:
            cells = torch.cartesian_prod(torch.arange(part[0]), torch.arange(part[1])).reshape(-1, 2).T
            columns.append(start + torch.cat([torch.zeros_like(cells[:1]), cells]))
    return torch.cat(columns, dim=1)
""",
    ],
    "02.3": [
        changed(TOUCHED, LOST, "not ((right - left) * w >= width and (bottom - top) * h >= height)"),
        """
from math import ceil, floor


def touched_tokens(box, size, resized):
    x, y = resized[0] / size[0], resized[1] / size[1]
    left, top, right, bottom = box[0] * x / 28, box[1] * y / 28, box[2] * x / 28, box[3] * y / 28
    across = resized[0] // 28
    return [r * across + c for r in range(floor(top), ceil(bottom)) for c in range(floor(left), ceil(right))]


def lost(box, size, resized):
    return min((box[2] - box[0]) * resized[0] / size[0], (box[3] - box[1]) * resized[1] / size[1]) < 1
""",
        """
def touched_tokens(box, size, resized):
    left, top, right, bottom = box
    tokens = []
    for number in range(resized[0] * resized[1] // 784):
        row, column = divmod(number, resized[0] // 28)
        x0, x1 = (28 * n * size[0] / resized[0] for n in (column, column + 1))
        y0, y1 = (28 * n * size[1] / resized[1] for n in (row, row + 1))
        if left < x1 and right > x0 and top < y1 and bottom > y0:
            tokens.append(number)
    return tokens


def lost(box, size, resized):
    wide, high = box[2] - box[0], box[3] - box[1]
    return not (wide * resized[0] >= size[0] and high * resized[1] >= size[1])
""",
        """
from fractions import Fraction


def edges(low, high, side, new):
    low, high = Fraction(low * new, 28 * side), Fraction(high * new, 28 * side)
    return range(int(low), int(high) + (high != int(high)))


def touched_tokens(box, size, resized):
    columns = edges(box[0], box[2], size[0], resized[0])
    return [column + row * resized[0] // 28 for row in edges(box[1], box[3], size[1], resized[1]) for column in columns]


def lost(box, size, resized):
    return any((box[i + 2] - box[i]) * resized[i] < size[i] for i in (0, 1))
""",
    ],
}
