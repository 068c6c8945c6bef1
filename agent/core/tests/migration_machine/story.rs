//! Moves as they go well and wrong, one story each.

mod canary;
mod crashing;
mod fleeing;
mod moving;
mod returning;
mod vetoes;
