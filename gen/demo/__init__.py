"""One page in the browser, a tab for each way to use a method (`scripts/demo.py`).

Needs Gradio, extra `demo`; nothing else of gen imports this. A tab is a module here and a row of
`TABS`.
"""

from typing import NamedTuple


class Role(NamedTuple):
    """A method that a tab shows, and how it is known."""

    checkpoint: str  # that ships
    what: str  # kind of method, in words
    has: str  # attribute that only this kind of method has


TABS = {  # module with the function `tab` -> title, and roles by the names of their options
    "translate": (
        "Translate",
        {"translator": Role("smooth_i2i_emoji64", "a translator between domains", "encode_style")},
    ),
    "edit": (
        "Edit",
        {
            "editor": Role("style_function_heads64", "an editor of codes", "edit"),
            "judge": Role(
                "attribute_classifier_heads64", "an AttributeClassifier", "attribute_names"
            ),
        },
    ),
    "move": (
        "Click to move",
        {"mover": Role("click_to_move_movers", "a ClickToMove", "predict_motion")},
    ),
}
ROLES = {name: role for _, roles in TABS.values() for name, role in roles.items()}
