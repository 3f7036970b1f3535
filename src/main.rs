//! The `crossdock` command.

/// For the Kafka client's C code, too: it allocates on one thread what it frees on another, several
/// times for each record, at which the C library's allocator is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // Huge pages are filled with zeros as a whole and given back as a whole: with queues that grow
    // and shrink they cost a third of the memory and some of the time. Without the call it is so.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    crossdock::cli::main()
}
