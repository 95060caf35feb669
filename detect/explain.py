"""Why does a detector call this fake? Heat over the picture: positive speaks for fake, negative for real.

cam: Zhou et al., CVPR 2016, arXiv 1512.04150. grad-cam, guided-grad-cam, counterfactual: Selvaraju et al., ICCV 2017,
arXiv 1610.02391. guided-backprop: Springenberg et al., 2015, arXiv 1412.6806. saliency: Simonyan et al., 2014, arXiv
1312.6034. occlusion: Zeiler and Fergus, ECCV 2014, arXiv 1311.2901.

The detector is only looked at: through hooks that are gone afterwards, also after an error, and without touching
modules, flags or gradients. Shapes: B batch, T frames (1 for stills), C channels, H height, W width; h, w the grid of
the layer.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from detect.detector import Detector

# Activations that guided backpropagation says nothing about, by the name of their step in autograd's graph.
OTHER_RECTIFIERS = {
    f"{name}Backward0"
    for name in (
        "LeakyRelu", "Elu", "Celu", "Hardtanh", "Hardswish", "Silu", "Gelu", "Mish", "Softplus", "RreluWithNoise",
        "PreluKernel", "Threshold", "Glu",
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Heat:
    """Evidence at every pixel, in the method's own numbers: nothing is rescaled, neither by image nor by batch."""

    values: Tensor  # B T H W, float32: positive speaks for fake, negative for real
    scale: str  # what the numbers are
    method: str
    logits: Tensor  # B, float32: the scores that are explained

    @property
    def limit(self) -> float:
        """Where a picture's colours may end on both sides: 99.5 % of the values that are not 0 lie within.

        One number for the whole batch; 0 where there is no evidence anywhere.
        """
        sizes = self.values.abs().flatten()
        sizes = sizes[sizes > 0]
        return float(sizes.kthvalue(math.ceil(0.995 * len(sizes))).values) if len(sizes) else 0.0


def explain(detector: Detector, x: Tensor, method: str = "grad-cam", **keywords: Any) -> Heat:
    """Explain the detector's logit for images B C H W or clips B T C H W, float in [-1, 1], as heat B T H W.

    A still detector's logit for a clip is the mean of its frames' logits, and that mean is what is explained.

    cam: the layer's channels weighted by the head. Only for heads of global average pooling and one linear layer.
    grad-cam: the layer's channels weighted by their mean gradient. Keywords: `layer` (default: the detector's own), a
        module whose output is B C h w, or B*T C h w with the frames of a clip one after the other, or that is called
        once a frame; `relu` (False) keeps only what speaks for fake, as published.
    counterfactual: Grad-CAM of the negated logit, rectified as published: what would make it real. It keeps this
        module's sign, so it is the negative part of grad-cam. Keyword `layer`.
    saliency: the gradient; guided-backprop: the same with negative gradients stopped at every ReLU, whether module or
        function. Of the three colours the one of largest size counts, with its sign, which says whether *brighter*
        looks more fake. The size is the importance.
    guided-grad-cam: grad-cam times the size of guided-backprop. Keywords as for grad-cam.
    occlusion: the drop of the logit when a window is hidden, averaged over the windows that cover a pixel. Keywords:
        `window` (a quarter of the shorter side) and `stride` (half a window) in pixels; `span`, how many frames of a
        clip are hidden at once (1); `baseline`, the value hidden pixels get (default: the mean colour of the image or
        clip); `batch`, how many copies are scored at once (32). It needs no gradient.

    Raises ValueError where a method does not fit the detector or the input.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if x.ndim not in (4, 5) or not x.is_floating_point() or len(x) == 0:
        raise ValueError(f"expected float images B C H W or clips B T C H W, got {x.dtype} of shape {tuple(x.shape)}")
    with _flags_kept(detector), torch.inference_mode(False), torch.enable_grad():
        clips = (x if x.ndim == 5 else x[:, None]).detach().clone()  # a plain tensor, whatever mode x was made in
        values, scale, logits = METHODS[method](detector, clips, **keywords)
    return Heat(values.detach().float(), scale, method, logits.detach().float())


Found = tuple[Tensor, str, Tensor]  # values B T H W, what the numbers are, logits B


@torch.no_grad()
def _cam(detector: Detector, clips: Tensor) -> Found:
    """sum_k w_k A_k (Zhou et al., eq. 2): the mean over the layer's grid is the logit less the head's bias."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        calls.append((module, args[0], output))

    handles = [m.register_forward_hook(keep) for m in _modules(detector) if isinstance(m, nn.Linear)]
    try:
        with _watched(detector.layer) as seen:
            logits = _score(detector, clips)
    finally:
        for handle in handles:
            handle.remove()
    maps = _by_frame(detector, seen, clips)
    if calls:
        head, pooled, output = calls[-1]
        means, weights = maps.mean((-2, -1)).flatten(0, 1), head.weight
        if (
            weights.shape == (1, means.shape[1])
            and pooled.shape == means.shape
            and _same(pooled, means)
            and _same(output.view(clips.shape[:2]).mean(1), logits)
        ):
            values = torch.einsum("btchw,c->bthw", maps, weights[0].to(maps))
            return _enlarge(values, clips), "logit, averaged over the picture", logits
    raise ValueError(
        "cam needs a head of global average pooling and one linear layer to one logit, right behind detector.layer, "
        "and this detector has another. Use grad-cam"
    )


def _grad_cam(detector: Detector, clips: Tensor, *, layer: nn.Module | None = None, relu: bool = False) -> Found:
    maps, logits = _grad_cam_maps(detector, clips, layer)
    return _enlarge(maps.clamp(min=0) if relu else maps, clips), "logit per cell of the layer's grid", logits


def _counterfactual(detector: Detector, clips: Tensor, *, layer: nn.Module | None = None) -> Found:
    maps, logits = _grad_cam_maps(detector, clips, layer)
    return _enlarge(maps.clamp(max=0), clips), "logit per cell of the layer's grid", logits


def _saliency(detector: Detector, clips: Tensor) -> Found:
    logits = _score(detector, clips.requires_grad_())
    (gradient,) = _gradients(logits, [clips])
    return _strongest(gradient), "logit per unit of brightness", logits


def _guided_backprop(detector: Detector, clips: Tensor) -> Found:
    logits = _score(detector, clips.requires_grad_())
    steps = list(_graph(logits))
    others = sorted({step.name() for step in steps} & OTHER_RECTIFIERS)
    rectifiers = [step for step in steps if step.name() == "ReluBackward0"]
    if others or not rectifiers:
        found = others[0].removesuffix("Backward0") if others else "no ReLU"
        raise ValueError(f"guided backpropagation is defined for nets of ReLUs, and this one has {found}. Use saliency")
    for step in rectifiers:  # the graph dies with this call, and the hooks with it
        step.register_prehook(lambda gradients: tuple(g if g is None else g.clamp(min=0) for g in gradients))
    (gradient,) = _gradients(logits, [clips])
    return _strongest(gradient), "guided gradient of the logit", logits


def _guided_grad_cam(detector: Detector, clips: Tensor, *, layer: nn.Module | None = None, relu: bool = False) -> Found:
    coarse, _, _ = _grad_cam(detector, clips, layer=layer, relu=relu)
    fine, _, logits = _guided_backprop(detector, clips)
    return coarse * fine.abs(), "grad-cam x guided gradient", logits


@torch.no_grad()
def _occlusion(
    detector: Detector,
    clips: Tensor,
    *,
    window: int | None = None,
    stride: int | None = None,
    span: int = 1,
    baseline: float | None = None,
    batch: int = 32,
) -> Found:
    b, t, _, h, w = clips.shape
    window = max(1, min(h, w) // 4) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= stride <= window <= min(h, w) or not 1 <= span <= t or batch < 1:
        raise ValueError(
            f"expected 1 <= stride <= window <= {min(h, w)} pixels, span from 1 to {t} frames and batch >= 1, "
            f"got stride {stride}, window {window}, span {span}, batch {batch}"
        )
    hidden = clips.mean((1, 3, 4), keepdim=True)
    if baseline is not None:
        hidden.fill_(baseline)
    places = [
        (slice(first, first + span), slice(top, top + window), slice(left, left + window))
        for first in _starts(t, span, span)
        for top in _starts(h, window, stride)
        for left in _starts(w, window, stride)
    ]
    logits = _score(detector, clips)
    total, count = torch.zeros(b, t, h, w, device=clips.device), torch.zeros(1, t, h, w, device=clips.device)
    step = max(1, batch // b)
    for start in range(0, len(places), step):
        part = places[start : start + step]
        copies = torch.stack([clips] * len(part))
        for copy, (frames, rows, columns) in zip(copies, part, strict=True):
            copy[:, frames, :, rows, columns] = hidden
        drops = logits - _score(detector, copies.flatten(0, 1)).view(len(part), b)
        for drop, place in zip(drops, part, strict=True):
            total[:, *place] += drop[:, None, None, None]
            count[:, *place] += 1
    return total / count, "drop of the logit when hidden", logits


METHODS: dict[str, Callable[..., Found]] = {
    "cam": _cam,
    "grad-cam": _grad_cam,
    "guided-backprop": _guided_backprop,
    "guided-grad-cam": _guided_grad_cam,
    "saliency": _saliency,
    "occlusion": _occlusion,
    "counterfactual": _counterfactual,
}


def _grad_cam_maps(detector: Detector, clips: Tensor, layer: nn.Module | None) -> tuple[Tensor, Tensor]:
    """sum_k alpha_k A_k, B T h w, with alpha_k the mean of d logit / d A_k (Selvaraju et al., eq. 1, 2), and logits."""
    with _watched(detector.layer if layer is None else layer) as seen:
        logits = _score(detector, clips)
    maps = _by_frame(detector, seen, clips)
    gradients = _by_frame(detector, _gradients(logits, seen), clips)
    return (gradients.mean((-2, -1), keepdim=True) * maps).sum(2), logits


def _score(detector: Detector, clips: Tensor) -> Tensor:
    """Logits, B, of clips B T C H W: of a still detector the mean of its frames' logits."""
    if detector.frames > 1:
        return detector.score(clips)
    return detector.score(clips.flatten(0, 1)).view(clips.shape[:2]).mean(1)


def _gradients(logits: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    if logits.requires_grad:
        found = torch.autograd.grad(logits.sum(), inputs, allow_unused=True)
        if all(gradient is not None for gradient in found):
            return list(found)
    raise ValueError("the detector's score cannot be differentiated by its layer or its input. Use occlusion")


def _strongest(gradient: Tensor) -> Tensor:
    """B T C H W to B T H W: of the channels the value of largest size, with its sign."""
    return gradient.gather(2, gradient.abs().argmax(2, keepdim=True)).squeeze(2)


def _graph(logits: Tensor) -> Iterator[Any]:
    """Every step of the computation behind the logits, as autograd remembers it."""
    seen, waiting = set(), [logits.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None and step not in seen:
            seen.add(step)
            waiting += [before for before, _ in step.next_functions]
            yield step


@contextmanager
def _watched(layer: nn.Module) -> Iterator[list[Tensor]]:
    """While the block lasts, collect the layer's outputs as the leaves from which the rest is computed.

    So there are gradients whatever is frozen, none are computed below the layer, and a ReLU that overwrites its input
    does not reach what was collected.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(f"layer: expected a module whose output is one tensor, {type(module).__name__}'s is not")
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()

    handle = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def _by_frame(detector: Detector, calls: list[Tensor], clips: Tensor) -> Tensor:
    """A layer's outputs as B T C h w: from one call with all frames, or from one call a frame."""
    b, t = clips.shape[:2]
    shapes = {tuple(call.shape) for call in calls}
    if len(shapes) == 1 and calls[0].ndim == 4:
        if len(calls) == 1 and len(calls[0]) == b * t:
            return calls[0].detach().unflatten(0, (b, t))
        if len(calls) == t and len(calls[0]) == b and detector.frames > 1:
            return torch.stack(calls, 1).detach()
    raise ValueError(
        f"layer: expected one call with {b * t} x C x h x w, or for clips {t} calls with {b} x C x h x w; "
        f"got {len(calls)} of {', '.join(map(str, sorted(shapes))) or 'nothing'}"
    )


def _enlarge(maps: Tensor, clips: Tensor) -> Tensor:
    """B T h w to B T H W, bilinear; both sides must have shrunk alike, for else the grid shows no places."""
    (h, w), size = maps.shape[-2:], clips.shape[-2:]
    least = max(size[0] / (h + 2), size[1] / (w + 2))
    most = min(size[0] / max(h - 2, 1e-9), size[1] / max(w - 2, 1e-9))
    if least > most:
        raise ValueError(
            f"the layer's grid of {h} x {w} is no picture of the {size[0]} x {size[1]} input. Use occlusion or saliency"
        )
    return interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that they cover all; the last one ends with the picture."""
    return sorted({*range(0, length - window + 1, stride), length - window})


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4 * float(b.detach().abs().max()) + 1e-12)


def _modules(detector: Detector) -> Iterator[nn.Module]:
    parts = [detector] if isinstance(detector, nn.Module) else vars(detector).values()
    for part in parts:
        if isinstance(part, nn.Module):
            yield from part.modules()


@contextmanager
def _flags_kept(detector: Detector) -> Iterator[None]:
    """Whatever `score` switches to eval mode is switched back."""
    before = [(module, module.training) for module in _modules(detector)]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
