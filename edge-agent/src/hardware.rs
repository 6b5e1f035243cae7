//! What the node is: read once from `/proc`, timed once.

use crate::gflops;
use crate::round::two_digits;
use sconce_api::{Amount, Hardware};
use std::path::PathBuf;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("/proc/meminfo has no MemTotal")]
    Memory,
    #[error("the speed of a core was not measured")]
    Speed(#[from] gflops::Error),
}

/// Instruction sets that matter to inference, the best for it first: the kernel's name, and ours.
const ISA: &[(&str, &str)] = &[
    ("amx_int8", "amx"),
    ("avx512_vnni", "avx512vnni"),
    ("avx512f", "avx512f"),
    ("avx_vnni", "avxvnni"),
    ("avx2", "avx2"),
    ("fma", "fma"),
    ("i8mm", "i8mm"),
    ("asimddp", "asimddp"),
    ("asimdhp", "asimdhp"),
    ("asimd", "asimd"),
];

/// Measures the node. Takes about a third of a second of one core.
///
/// # Errors
/// If `/proc` cannot be read, or there is no memory for the timed product.
pub fn measure() -> Result<Hardware, Error> {
    let cpuinfo = read("/proc/cpuinfo")?;
    let meminfo = read("/proc/meminfo")?;
    let architecture = architecture(std::env::consts::ARCH);
    let isa = isa(&cpuinfo);
    // What this process may use: a CPU limit or a cpuset counts. The pod that we ship has neither.
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    Ok(Hardware {
        class: class(architecture, &isa, cores),
        architecture: architecture.into(),
        isa,
        // At least 1, so that nobody divides by a core too slow to be told in whole GFLOP/s.
        gflops: two_digits(gflops::of_one_core()?.round() as u64).max(1) as i64,
        cpu_model: cpu_model(&cpuinfo),
        cores: cores as i64,
        memory: memory(&meminfo).ok_or(Error::Memory)?,
    })
}

fn read(path: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })
}

/// Rust's name of an architecture as the label `kubernetes.io/arch` has it.
fn architecture(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Ours of the kernel's flags, the best first. The kernel's list, not the compiler's macros: it knows every set by name,
/// and one reader serves all architectures.
fn isa(cpuinfo: &str) -> Vec<String> {
    let flags: Vec<&str> = field(cpuinfo, "flags")
        .or_else(|| field(cpuinfo, "Features"))
        .map(|flags| flags.split_ascii_whitespace().collect())
        .unwrap_or_default();
    ISA.iter().filter(|(kernel, _)| flags.contains(kernel)).map(|(_, ours)| (*ours).to_owned()).collect()
}

/// Nodes of one class run a model alike, such as `amd64-avx512vnni-2`.
fn class(architecture: &str, isa: &[String], cores: usize) -> String {
    let best = isa.first().map_or("base", String::as_str);
    format!("{architecture}-{best}-{cores}")
}

fn cpu_model(cpuinfo: &str) -> String {
    let name = field(cpuinfo, "model name").map(str::to_owned).unwrap_or_else(|| {
        let part = |key| field(cpuinfo, key).unwrap_or("unknown");
        format!("implementer {} part {}", part("CPU implementer"), part("CPU part"))
    });
    name.chars().take(128).collect()
}

fn memory(meminfo: &str) -> Option<Amount> {
    let kib: u64 = field(meminfo, "MemTotal")?.strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(Amount(format!("{}Mi", kib / 1024)))
}

/// The first value of a key in a `key : value` text.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6338\n\
        flags\t\t: fpu sse2 fma avx2 avx512f avx512bw avx512_vnni\n\nprocessor\t: 1\nmodel name\t: other\nflags\t\t: fpu\n";
    const PI: &str = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid asimddp\n\
        CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n";

    #[test]
    fn a_server_is_classed_by_its_best_instruction_set() {
        assert_eq!(isa(SERVER), ["avx512vnni", "avx512f", "avx2", "fma"]);
        assert_eq!(class("amd64", &isa(SERVER), 2), "amd64-avx512vnni-2");
        assert_eq!(cpu_model(SERVER), "Intel(R) Xeon(R) Gold 6338");
    }

    #[test]
    fn a_small_board_is_classed_alike() {
        assert_eq!(isa(PI), ["asimddp", "asimd"]);
        assert_eq!(class("arm64", &isa(PI), 4), "arm64-asimddp-4");
        assert_eq!(cpu_model(PI), "implementer 0x41 part 0xd0b");
    }

    #[test]
    fn an_unknown_processor_still_has_a_class() {
        assert_eq!(class("riscv64", &isa("hart : 0\n"), 8), "riscv64-base-8");
        assert_eq!(cpu_model(""), "implementer unknown part unknown");
    }

    #[test]
    fn architectures_are_named_as_kubernetes_names_them() {
        assert_eq!(["x86_64", "aarch64", "riscv64"].map(architecture), ["amd64", "arm64", "riscv64"]);
    }

    #[test]
    fn memory_is_the_total() {
        let text = "MemTotal:        3995648 kB\nMemFree:          123456 kB\n";
        assert_eq!(memory(text), Some(Amount::from("3902Mi")));
        assert_eq!(memory("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_can_be_measured() {
        let hardware = measure().unwrap();
        assert!(hardware.gflops >= 1 && hardware.cores >= 1, "{hardware:?}");
        assert!(hardware.class.starts_with(&hardware.architecture), "{hardware:?}");
    }
}
