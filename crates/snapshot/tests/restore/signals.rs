//! Signal actions and system calls that the tracer's own doing must not touch.

use crate::driver::Driver;
use crate::replay::replay;

/// A single step over an injected call ends in a SIGTRAP that the kernel forces,
/// taking away the action for it where it is blocked or ignored.
#[test]
fn the_action_for_sigtrap_is_kept() {
    for action in ["handle", "ignore", "block"] {
        let mut driver = Driver::start("trap", &[action]);
        let runs = replay(&mut driver, &mut |_| ());
        runs.assert_same(&["kept"]);
    }
}

/// A timer that goes off all the time must not disturb what is injected, and
/// must not be lost by it.
#[test]
fn a_storm_of_timer_signals_goes_on() {
    let mut driver = Driver::start("storm", &[]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&["still stormy"]);
}

/// A timer that went off between looking at its setting and at the signals that
/// wait was lost in the copy, or there twice.
#[test]
fn an_alarm_at_the_moment_of_the_checkpoint_comes_once() {
    for microseconds in ["1", "50", "200", "1000", "20000"] {
        let mut driver = Driver::start("alarm", &[microseconds]);
        let runs = replay(&mut driver, &mut |_| ());
        runs.assert_same(&["alarms: 1"]);
    }
}

/// A blocked signal that waited made the copies' calls answer EINTR.
#[test]
fn a_signal_that_is_blocked_interrupts_nothing() {
    let mut driver = Driver::start("blocked", &[]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&["poll: 0"]);
}

/// What injected calls passed through the guest's stack was still there in the
/// copy that one of them made.
#[test]
fn nothing_injected_is_left_on_the_stack() {
    let mut driver = Driver::start("stack", &[]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&["changed: 0"]);
}
