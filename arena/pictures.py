"""Pictures for people. Every one says in its own file that it is synthetic and which method, run and seed made it."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor


def png(image: np.ndarray, marks: dict[str, str]) -> bytes:
    """A PNG of uint8 h w 3 with text chunks and, for tools that look there, XMP's DigitalSourceType.

    `Synthetic` among the marks is "true" for a fake, or says what of a picture is synthetic.
    """
    kind = "trainedAlgorithmicMedia" if marks["Synthetic"] == "true" else "compositeWithTrainedAlgorithmicMedia"
    text = PngInfo()
    for key, value in marks.items():
        text.add_text(key, value)
    text.add_itxt("XML:com.adobe.xmp", XMP.replace("KIND", kind))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def sheet(rows: Sequence[Tensor], gap: int = 2) -> np.ndarray:
    """Rows of images (uint8 n 3 s s each) as one picture, uint8 h w 3, on white."""
    n, size = max(len(row) for row in rows), rows[0].shape[-1]
    step = size + gap
    picture = np.full((len(rows) * step + gap, n * step + gap, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row.permute(0, 2, 3, 1).numpy()):
            top, left = gap + r * step, gap + c * step
            picture[top : top + size, left : left + size] = image
    return picture


XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType='
    '"http://cv.iptc.org/newscodes/digitalsourcetype/KIND"/></rdf:RDF></x:xmpmeta>'
    '<?xpacket end="w"?>'
)
