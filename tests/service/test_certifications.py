from __future__ import annotations

import time

import pytest

from service.certifications import UNKNOWN_RETRY_AFTER, Certifications, Pace
from service.errors import OverloadedError


def test_places_are_given_back_and_beyond_them_the_first_to_end_says_when_to_come_back() -> None:
    certifications = Certifications(2)
    with certifications.admitted() as slow, certifications.admitted() as quick:
        assert certifications.running == 2
        assert certifications.retry_after() == UNKNOWN_RETRY_AFTER
        slow._begun = quick._begun = time.monotonic() - 60
        slow.note(1, 4)
        quick.note(3, 4)
        with pytest.raises(OverloadedError) as refused, certifications.admitted():
            pass
        assert 20 <= refused.value.retry_after <= 22
        assert refused.value.reason == "certifications"
    assert certifications.running == 0
    with certifications.admitted():
        assert certifications.running == 1


def test_seconds_left_follow_the_pace() -> None:
    pace = Pace()
    assert pace.seconds_left is None
    pace._begun = time.monotonic() - 10
    pace.note(0, 100)
    assert pace.seconds_left is None
    pace.note(25, 100)
    assert pace.seconds_left == pytest.approx(30, abs=1)
    pace.note(100, 100)
    assert pace.seconds_left == 0
