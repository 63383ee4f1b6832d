"""Sentences for the operator: once each, few, and gone when they are over."""

from p2pfed.notices import NOTICES_MAX, Notices


def test_a_sentence_is_there_once() -> None:
    notices = Notices()
    assert notices.add("One thing.") and not notices.add("One thing.")
    assert notices.sentences == ["One thing."]


def test_a_key_names_one_sentence_that_may_change_and_go() -> None:
    notices = Notices()
    notices.add("Seed a fails.", "seeds")
    notices.add("Another thing.")
    assert notices.add("Seeds a and b fail.", "seeds")
    assert notices.sentences == ["Another thing.", "Seeds a and b fail."], "the newest last"
    notices.clear("seeds")
    notices.clear("never there")
    assert notices.sentences == ["Another thing."]


def test_the_oldest_goes_first() -> None:
    notices = Notices()
    for number in range(NOTICES_MAX + 2):
        notices.add(f"Thing {number}.")
    assert len(notices.sentences) == NOTICES_MAX and notices.sentences[0] == "Thing 2."
