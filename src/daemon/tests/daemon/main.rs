//! The program as whoever starts it sees it: exit codes and messages, sockets and files, what a
//! running daemon may do, and mounts on this host.

mod command_line;
mod confinement;
mod mounting;
mod process;
mod serving;
