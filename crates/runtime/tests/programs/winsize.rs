//! The size of the terminal that is a program's standard input, for test programs that have nothing but std.

unsafe extern "C" {
    fn ioctl(fd: i32, request: u64, ...) -> i32;
}

/// Columns and rows; `None`: it is no terminal.
pub fn winsize() -> Option<(u16, u16)> {
    let mut size = [0u16; 4];
    // SAFETY: TIOCGWINSZ writes four 16-bit numbers.
    let done = unsafe { ioctl(0, 0x5413, size.as_mut_ptr()) };
    (done == 0).then_some((size[1], size[0]))
}
