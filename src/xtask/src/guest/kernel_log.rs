//! What a guest's kernel log must not hold after a run.

/// Words that begin a complaint of the FUSE or virtio-fs driver. From Linux
/// 7.1 on the driver complains there about malformed replies.
const DRIVERS: [&str; 2] = ["virtio-fs:", "fuse:"];

/// Words of a kernel in trouble.
const TROUBLE: [&str; 7] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "Call Trace",
    "Kernel panic",
    "blocked for more than",
    "soft lockup",
];

/// The lines of `log` that complain. The driver's greeting is none.
pub(crate) fn complaints(log: &[String]) -> Vec<&str> {
    log.iter()
        .map(String::as_str)
        .filter(|line| {
            let driver = DRIVERS.iter().any(|word| line.contains(word))
                && !line.contains("fuse: init (API version");
            driver || TROUBLE.iter().any(|word| line.contains(word))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_drivers_greeting_is_no_complaint() {
        let quiet = log("[ 0.1] fuse: init (API version 7.45)\n[ 0.2] virtiofs virtio0: x\n");
        assert!(complaints(&quiet).is_empty());
    }

    #[test]
    fn a_reply_that_is_too_short_is_a_complaint() {
        let noisy = log("[ 9.1] virtio-fs: response too short (0)\n[ 9.2] random: crng init done");
        assert_eq!(
            complaints(&noisy),
            ["[ 9.1] virtio-fs: response too short (0)"]
        );
    }

    #[test]
    fn a_kernel_in_trouble_is_a_complaint() {
        assert_eq!(
            complaints(&log("INFO: task ls:12 blocked for more than 120 seconds.")).len(),
            1
        );
    }
}
