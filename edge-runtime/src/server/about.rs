//! What the server says about itself and its model: the same messages for both wires.

use super::{Refusal, Service};
use crate::batch::{DEFAULT_LEVEL, LEVELS};
use crate::decode::ENCODED;
use crate::encode::Identity;
use crate::statistics::Spent;
use crate::wire::model_instance_group::Kind;
use crate::wire::model_metadata_response::TensorMetadata;
use crate::wire::repository_index_response::ModelIndex;
use crate::wire::{
    DataType, InferBatchStatistics, InferStatistics, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup,
    ModelMetadataResponse, ModelOutput, ModelReadyResponse, ModelStatistics, ModelStatisticsResponse,
    ModelTransactionPolicy, RepositoryIndexResponse, ServerMetadataResponse, StatisticDuration,
};
use sconce_model::artifact::TensorSpec;
use std::time::UNIX_EPOCH;

const PLATFORM: &str = "sconce_candle";
/// Of the protocol, as far as they are served.
const EXTENSIONS: [&str; 7] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

impl Service {
    pub(super) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    pub(super) fn server_metadata(&self) -> ServerMetadataResponse {
        let extensions = EXTENSIONS.map(String::from).into();
        ServerMetadataResponse { name: "sconce".into(), version: env!("CARGO_PKG_VERSION").into(), extensions }
    }

    pub(super) fn model_ready(&self, name: &str, version: &str) -> Result<ModelReadyResponse, Refusal> {
        self.named(name, version)?;
        Ok(ModelReadyResponse { ready: self.is_ready() })
    }

    pub(super) fn model_metadata(&self, name: &str, version: &str) -> Result<ModelMetadataResponse, Refusal> {
        self.named(name, version)?;
        Ok(ModelMetadataResponse {
            name: self.identity.name.clone(),
            versions: vec![self.identity.version.clone()],
            platform: PLATFORM.into(),
            inputs: self.inputs().map(described).collect(),
            outputs: vec![described(self.signature.output.clone())],
            properties: Default::default(),
        })
    }

    /// The tensor, and where they are taken the encoded images that may be sent instead.
    fn inputs(&self) -> impl Iterator<Item = TensorSpec> {
        let encoded = || TensorSpec { name: ENCODED.into(), datatype: "BYTES".into(), shape: vec![-1, 1] };
        std::iter::once(self.signature.input.clone()).chain(self.signature.images.as_ref().map(|_| encoded()))
    }

    pub(super) fn model_config(&self, name: &str, version: &str) -> Result<ModelConfig, Refusal> {
        self.named(name, version)?;
        let output = &self.signature.output;
        let policy = self.engine.policy();
        Ok(ModelConfig {
            name: self.identity.name.clone(),
            platform: PLATFORM.into(),
            backend: "sconce".into(),
            max_batch_size: self.signature.max_batch_size as i32,
            input: self.inputs().map(config_input).collect(),
            output: vec![ModelOutput {
                name: output.name.clone(),
                data_type: data_type(&output.datatype).into(),
                dims: of_row(output),
            }],
            instance_group: vec![ModelInstanceGroup {
                name: self.identity.name.clone(),
                count: 1,
                kind: Kind::Cpu.into(),
            }],
            dynamic_batching: Some(ModelDynamicBatching {
                preferred_batch_size: Vec::new(),
                max_queue_delay_microseconds: policy.max_queue_delay.as_micros() as u64,
                priority_levels: LEVELS.into(),
                default_priority_level: DEFAULT_LEVEL.into(),
            }),
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        })
    }

    /// No name means every model: there is one.
    pub(super) fn model_statistics(&self, name: &str, version: &str) -> Result<ModelStatisticsResponse, Refusal> {
        if !name.is_empty() {
            self.named(name, version)?;
        }
        let totals = self.metrics.statistics.totals();
        let since_1970 = totals.last_inference.and_then(|last| last.duration_since(UNIX_EPOCH).ok());
        let batches = totals.batches.iter().map(|(rows, spent)| InferBatchStatistics {
            batch_size: *rows as u64,
            compute_input: duration(Spent::default()),
            compute_infer: duration(*spent),
            compute_output: duration(Spent::default()),
        });
        let Identity { name, version } = self.identity.clone();
        let model = ModelStatistics {
            name,
            version,
            last_inference: since_1970.map_or(0, |since| since.as_millis() as u64),
            inference_count: totals.rows,
            execution_count: totals.executions,
            inference_stats: Some(InferStatistics {
                success: duration(totals.success),
                fail: duration(totals.fail),
                queue: duration(totals.queue),
                compute_input: duration(totals.compute_input),
                compute_infer: duration(totals.compute_infer),
                compute_output: duration(totals.compute_output),
                cache_hit: duration(Spent::default()),
                cache_miss: duration(Spent::default()),
            }),
            batch_stats: batches.collect(),
        };
        Ok(ModelStatisticsResponse { model_stats: vec![model] })
    }

    pub(super) fn index(&self, only_ready: bool) -> RepositoryIndexResponse {
        let ready = self.is_ready();
        let (state, reason) = if ready { ("READY", "") } else { ("UNAVAILABLE", "the server is shutting down") };
        let Identity { name, version } = self.identity.clone();
        let model = ModelIndex { name, version, state: state.into(), reason: reason.into() };
        RepositoryIndexResponse { models: if ready || !only_ready { vec![model] } else { Vec::new() } }
    }

    /// Models are neither loaded nor unloaded: a process serves one, from its start to its end.
    pub(super) fn one_model(&self, verb: &'static str, asked: &str) -> Refusal {
        Refusal::OneModel { verb, asked: asked.into(), served: self.identity.name.clone() }
    }
}

fn described(tensor: TensorSpec) -> TensorMetadata {
    TensorMetadata { name: tensor.name, datatype: tensor.datatype, shape: tensor.shape }
}

/// Clients that fill whatever is not optional send the tensor.
fn config_input(tensor: TensorSpec) -> ModelInput {
    ModelInput {
        optional: tensor.name == ENCODED,
        data_type: data_type(&tensor.datatype).into(),
        dims: of_row(&tensor),
        name: tensor.name,
    }
}

/// The shape without the batch.
fn of_row(tensor: &TensorSpec) -> Vec<i64> {
    tensor.shape.get(1..).unwrap_or_default().to_vec()
}

fn data_type(datatype: &str) -> DataType {
    let name = if datatype == "BYTES" { "STRING" } else { datatype };
    DataType::from_str_name(&format!("TYPE_{name}")).unwrap_or_default()
}

fn duration(spent: Spent) -> Option<StatisticDuration> {
    let ns = u64::try_from(spent.time.as_nanos()).unwrap_or(u64::MAX);
    Some(StatisticDuration { count: spent.count, ns })
}
