from fivetran_state.runtime.lease import Refusals


def test_a_key_may_be_refused_for_weeks() -> None:
    refusals = Refusals()
    for _ in range(2000):
        refusals.note()
        refusals.give_up("a:1")

    assert (refusals.may_ask(), refusals.may_try("a:1")) == (False, False)
