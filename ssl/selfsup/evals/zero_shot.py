"""Classification by text alone: the image's nearest class prompt (Radford et al. 2021, §3.1, arXiv:2103.00020)."""

import torch
import torch.nn.functional as F

from selfsup.errors import UserError
from selfsup.evals import accuracy, embed, percent

parts = ("image_head", "text")                           # of the encoder folder, besides the encoder


def run(encoder, data, image_head, text, prompts, bootstrap=1000):
    """Chooses on val the template of the list `prompts` ("a {}") under which class names are best told apart.

    image_head maps encoder features (N, d) and text maps token ids (n, L) into the space that they share.
    Yields accuracy, low, high (percent, test) and val_accuracy of the chosen `prompt`; the val accuracy of every
    template in `prompts`; the test and val accuracy of the `ensemble`, the mean of all templates' text features;
    and `chance`, the accuracy of guessing.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise UserError(f'protocols.zero_shot.prompts: "{prompt}" has no {{}} for the class name')
    classes = data.card["classes"]
    texts = {prompt: encode(text, data.tokenizer, [prompt.replace("{}", name) for name in classes])
             for prompt in prompts}
    together = F.normalize(torch.stack(list(texts.values())).mean(0), dim=1)
    features, truth = shared(encoder, image_head, data.val)
    val = {prompt: correct(features, rows, truth).float().mean().item() for prompt, rows in texts.items()}
    val_together = correct(features, together, truth).float().mean()
    best = max(val, key=val.get)                         # the first of equals, in the order of the list
    features, truth = shared(encoder, image_head, data.test)
    yield from accuracy(correct(features, texts[best], truth), bootstrap)
    yield "val_accuracy", percent(val[best])
    yield "prompt", best
    yield "prompts", {prompt: percent(share) for prompt, share in val.items()}
    yield "ensemble", dict(accuracy(correct(features, together, truth), bootstrap), val_accuracy=percent(val_together))
    yield "chance", percent(1 / len(classes))


@torch.no_grad()
def shared(encoder, image_head, split):
    """Unit image features in the space shared with text (N, d), and labels (N,)."""
    features, labels = embed(encoder, split)
    return F.normalize(image_head(features), dim=1), labels


@torch.no_grad()
def encode(text, tokenizer, sentences):
    """Unit text features (n, d) of n sentences, which the tokenizer pads to one length as it did in training."""
    ids = torch.tensor([line.ids for line in tokenizer.encode_batch(sentences)])
    return F.normalize(text(ids.to(next(text.parameters()).device)), dim=1)


def correct(images, texts, truth):
    """Whether each unit image row (N, d) is nearest to the text row (classes, d) of its true class: bool (N,)."""
    return (images @ texts.T).argmax(1) == truth
