//! Tables of cases, and what holds of all.

use super::*;

#[test]
fn the_default_scales_nothing_and_is_well() {
    let policy = Autoscale::default();
    assert_eq!(
        (policy.floor(), policy.clamp(0), policy.clamp(9)),
        (1, 1, 1)
    );
    assert_eq!(policy.refuse(), None);
}
