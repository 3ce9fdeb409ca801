import pytest

# An assertion that fails in a shared function shows its values too.
pytest.register_assert_rewrite("tests.support")
