//! What containers see of the machine's files.

use crate::Test;

pub(crate) const TESTS: &[Test] = &[];
