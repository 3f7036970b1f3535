//! The `crossdock` command.

/// For the Kafka client's C code, too: it allocates on one thread what it frees on another, several
/// times for each record, at which the C library's allocator is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    crossdock::cli::main()
}
