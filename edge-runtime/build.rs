//! Compiles the protocol without protoc, and keeps its descriptors for reflection.

use std::path::PathBuf;

/// What REST writes as JSON, too: one answer, two wires.
const SERIALIZED: [&str; 15] = [
    "ServerMetadataResponse",
    "ModelMetadataResponse",
    "ModelConfig",
    "ModelInput",
    "ModelOutput",
    "ModelInstanceGroup",
    "ModelDynamicBatching",
    "ModelTransactionPolicy",
    "ModelStatisticsResponse",
    "ModelStatistics",
    "InferStatistics",
    "InferBatchStatistics",
    "StatisticDuration",
    "RepositoryIndexResponse",
    "ModelReadyResponse",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    // Where a static program's pointers lie, in a thirtieth of the room: half a megabyte that each start would read.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_file("open_inference.proto")?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("inference.bin");
    std::fs::write(descriptors, compiler.encode_file_descriptor_set())?;
    let mut builder = tonic_prost_build::configure().bytes(".").codec_path("crate::wire::Codec");
    for message in SERIALIZED {
        builder = builder.message_attribute(format!(".inference.{message}"), "#[derive(serde::Serialize)]");
    }
    // JSON names the values of an enumeration, as protobuf's own mapping does.
    for (field, name) in [
        (".inference.ModelInput.data_type", "data_type"),
        (".inference.ModelOutput.data_type", "data_type"),
        (".inference.ModelInstanceGroup.kind", "kind"),
    ] {
        builder = builder.field_attribute(field, format!("#[serde(serialize_with = \"names::{name}\")]"));
    }
    builder
        .field_attribute(
            ".inference.ModelMetadataResponse.properties",
            "#[serde(skip_serializing_if = \"std::collections::HashMap::is_empty\")]",
        )
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
