//! How much memory this process may use.
//!
//! Invariant: a control group is limited by those around it as well, so the least of all limits counts; version 1 and 2 are read alike.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of memory this process may use: the machine's, or the limit of its control group or address space where that is lower.
pub fn memory_limit() -> usize {
    // 0 until the first thread has asked; another that asks meanwhile finds out for itself, rather than wait.
    static LIMIT: AtomicUsize = AtomicUsize::new(0);
    match LIMIT.load(Relaxed) {
        0 => {
            let limit = find_memory_limit().max(1);
            LIMIT.store(limit, Relaxed);
            limit
        }
        limit => limit,
    }
}

fn find_memory_limit() -> usize {
    // SAFETY: sysconf only reads.
    let machine = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES).max(0) * libc::sysconf(libc::_SC_PAGESIZE).max(0) };
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = of_groups(Path::new("/sys/fs/cgroup"), &groups);
    group.unwrap_or(usize::MAX).min(if machine > 0 { machine as usize } else { usize::MAX }).min(address_space())
}

/// Bytes of addresses this process may have.
fn address_space() -> usize {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: getrlimit only writes to the struct it is given.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// The least limit of control groups in bytes, if any. `groups` is what /proc/self/cgroup says, `root` where control groups are mounted.
fn of_groups(root: &Path, groups: &str) -> Option<usize> {
    groups.lines().filter_map(|line| of_group(root, line)).chain(file_limits(root)).min()
}

/// The limit that a line `number:controllers:path` leads to.
fn of_group(root: &Path, line: &str) -> Option<usize> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let mount = match controllers {
        "" => root.to_path_buf(),
        _ if controllers.split(',').any(|name| name == "memory") => root.join("memory"),
        _ => return None,
    };
    let group = mount.join(path.trim_start_matches('/'));
    group.ancestors().take_while(|folder| folder.starts_with(&mount)).filter_map(file_limits).min()
}

fn file_limits(folder: &Path) -> Option<usize> {
    let read = |name| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<usize>().ok();
    ["memory.max", "memory.limit_in_bytes"].into_iter().filter_map(read).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_least_limit_of_a_group_and_those_around_it() {
        let root = std::env::temp_dir().join(format!("treadle-groups-{}", std::process::id()));
        for (file, text) in [
            ("outer/memory.max", "5000\n"),
            ("outer/inner/memory.max", "max\n"),
            ("other/memory.max", "1\n"),
            ("memory/a/memory.limit_in_bytes", "4000\n"),
            ("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        assert_eq!(of_groups(&root, "0::/outer/inner\n"), Some(5000));
        assert_eq!(of_groups(&root, "0::/outer\n"), Some(5000));
        assert_eq!(of_groups(&root, "0::/\n"), None);
        assert_eq!(of_groups(&root, "5:cpu:/other\n4:cpuset,memory:/a/b\n0::/\n"), Some(4000));
        assert_eq!(of_groups(&root, "4:memory:/a\n0::/outer/inner"), Some(4000));
        assert_eq!(of_groups(&root, "nonsense"), None);
        fs::remove_dir_all(&root).expect("removed");
    }
}
