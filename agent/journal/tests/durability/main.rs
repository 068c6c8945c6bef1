//! The journal on a disk that tears, refuses and loses power, and on a real one.

mod faulty;
mod power_cut;
mod real;
mod refusal;
