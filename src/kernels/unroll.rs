//! Loops over registers.

/// `for $i in 0..$n` with a constant `$n` of at most `$most` (3, 4, 5, 8, 14, 19 or 28), unrolled before the optimiser
/// sees it.
///
/// An array that only constants index lives in registers, whatever the optimiser thinks of unrolling.
macro_rules! unroll {
    ($i:ident < $n:expr, 3, $body:block) => { unroll!(@ $i, $n, $body, 0 1 2) };
    ($i:ident < $n:expr, 4, $body:block) => { unroll!(@ $i, $n, $body, 0 1 2 3) };
    ($i:ident < $n:expr, 5, $body:block) => { unroll!(@ $i, $n, $body, 0 1 2 3 4) };
    ($i:ident < $n:expr, 8, $body:block) => { unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7) };
    ($i:ident < $n:expr, 14, $body:block) => { unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13) };
    ($i:ident < $n:expr, 19, $body:block) => { unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18) };
    ($i:ident < $n:expr, 28, $body:block) => { unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27) };
    (@ $i:ident, $n:expr, $body:block, $($turn:literal)*) => {
        const { assert!($n <= [$($turn),*].len(), "more turns than are written out") };
        $(if const { $turn < $n } {
            let $i: usize = $turn;
            $body
        })*
    };
}
