//! How many files and sockets this process may have open.

/// Raises the soft limit of open files to the hard one, and logs what came of it. The soft one is
/// often 1,024, which is a limit on connected clients that nobody chose.
pub(crate) fn raise_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::info!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

#[cfg(test)]
mod tests {
    use rlimit::Resource;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = Resource::NOFILE.get().unwrap();
        Resource::NOFILE.set(hard.min(64), hard).unwrap();
        super::raise_limit();
        assert_eq!(Resource::NOFILE.get().unwrap(), (hard, hard));
    }
}
