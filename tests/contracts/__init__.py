"""What every member of a kind must do; each suite finds new members by itself."""

import pytest

pytest.register_assert_rewrite(*(f"tests.contracts.{kind}" for kind in ("posterior", "layer", "rule")))
