"""The questions of the last chapter, in the order of the page."""

from dataclasses import dataclass

from resnetkit.studies.phrase import Phrase, phrase

__all__ = ["QUESTIONS", "Question"]


@dataclass(frozen=True)
class Question:
    """A question and its answer; its picture is drawn by questions.js.

    Attributes:
        name: part of the id of its picture.
        title: the question.
        paragraphs: the answer.
        caption: what the picture shows.
        still_caption: what the still picture shows, where it is another one.
    """

    name: str
    title: Phrase
    paragraphs: tuple[Phrase, ...]
    caption: Phrase
    still_caption: Phrase | None = None


QUESTIONS = (
    Question(
        "stacking",
        phrase("Why not just stack more layers?"),
        (
            phrase(
                "Because training does not find what the added layers would have to do. They could"
                " copy their input, and the deeper network would be as good as the shallower. But a"
                " layer with random weights is far from copying, and a stack of many such layers is"
                " hard to steer."
            ),
        ),
        phrase(
            "Training error by depth: more layers make plain networks worse, but not residual ones."
        ),
    ),
    Question(
        "overfitting",
        phrase("Is it overfitting?"),
        (
            phrase(
                "No. A network that overfits has a low error on its training images and a high one"
                " on others. The deep plain network has a high error on both: it does not even"
                " learn the images that it is shown."
            ),
        ),
        phrase("Final errors of plain networks: both bars of plain-56 are long, not only one."),
        phrase(
            "Final errors of plain networks by depth: at 56 layers both are high, on the training"
            " images (thin line) and on the test images (thick line)."
        ),
    ),
    Question(
        "gradient",
        phrase("Is it the vanishing gradient?"),
        (
            phrase(
                "No. With batch normalization the gradient does not shrink on its way back through"
                " plain-56: before training it even grows, and after training it is as large at the"
                " first layers as at the last ones. The network degrades all the same. The paper"
                " says so of its plain networks, too."
            ),
            phrase(
                "Gradients do vanish where nothing keeps their size: without normalization and with"
                " small initial weights. That is another problem, and it was solved before."
            ),
        ),
        phrase(
            "The input is on the left. A gradient that vanishes on its way back falls toward the"
            " left; those of the normalized plain networks rise."
        ),
    ),
    Question(
        "backward",
        phrase("What does the shortcut do in the backward pass?"),
        (
            phrase(
                "The gradient of y = F(x) + x is that of F plus one. So the gradient does not have"
                " to go through the layers: from every block it also goes straight on. A network of"
                " many blocks is a bundle of paths, and each block doubles their number."
            ),
            phrase(
                "A path through many blocks carries almost nothing, and short paths are few. What"
                " arrives comes mostly on the many paths through a small part of the blocks."
            ),
        ),
        phrase(
            "Gradient of the trained resnet-56 at its input, by the number of blocks on the way:"
            " on one path, and on all paths of that length together."
        ),
    ),
    Question(
        "residual",
        phrase("Why learn F(x) and not H(x)?"),
        (
            phrase(
                "Because the right answer is usually close to the input. A block that should change"
                " little only has to keep F(x) small, for which small weights are enough. Without"
                " the shortcut the same block would have to rebuild its whole input."
            ),
            phrase("Measured: the more blocks there are, the less each of them changes."),
        ),
        phrase(
            "Size of F(x) relative to the shortcut, from the first block to the last. The peaks are"
            " the blocks where the size of the maps changes."
        ),
    ),
    Question(
        "shapes",
        phrase("What if the shapes differ?"),
        (
            phrase(
                "Between stages there are twice the channels and half the side, so x cannot simply"
                " be added. Option A skips every other pixel and fills new channels with zeros."
                " Option B projects x with a 1x1 convolution there, option C everywhere."
            ),
            phrase(
                "What matters most is that there is a shortcut. With option C no path is left on"
                " which the signal passes unchanged."
            ),
        ),
        phrase("Final test error of networks of 32 layers, and their number of parameters."),
        phrase(
            "Test error of networks of 32 layers during training. plain-32 has no shortcuts;"
            " resnet-32 has those of option A."
        ),
    ),
    Question(
        "deep",
        phrase("How deep can it go?"),
        (
            phrase(
                "As deep as there is something to gain. Residual networks keep their low training"
                " error when layers are added; plain ones lose it after some thirty layers. Small"
                " images of digits need no hundred layers, so depth stops helping long before it"
                " starts to hurt."
            ),
        ),
        phrase("Final errors by depth: thin lines on training images, thick ones on test images."),
    ),
    Question(
        "code",
        phrase("What does the block look like in code?"),
        (
            phrase(
                "Ten lines, of which one makes the difference: y = F(x) + x. This is the block of"
                " the networks on this page where the shape does not change. It runs as it stands."
            ),
        ),
        phrase("A test of resnetkit runs these lines and compares them with its own block."),
    ),
)
