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
