//! What a model's backbone makes of an input, for those who ask for that.

use super::EXECUTOR;
use super::rest::{INFER, ask};
use crate::common::{MODEL, PIXELS, Server, request, tiny};
use candle_core::{Device, Tensor};
use sconce_edge_runtime::wire::infer_parameter::ParameterChoice;
use sconce_edge_runtime::wire::model_infer_request::InferRequestedOutputTensor;
use sconce_edge_runtime::wire::{ModelInferRequest, ModelMetadataRequest, ModelStatisticsRequest};
use sconce_model::artifact::Artifact;
use tonic::Code;

fn asking_for(rows: i64, outputs: &[&str]) -> ModelInferRequest {
    let outputs = outputs.iter().map(|name| InferRequestedOutputTensor { name: (*name).into(), ..Default::default() });
    ModelInferRequest { outputs: outputs.collect(), ..request(rows) }
}

#[tokio::test]
async fn features_are_for_those_who_ask_for_nothing_else_and_say_what_made_them() {
    let folder = tiny(7);
    let server = Server::of_folder(EXECUTOR, folder.path()).await;
    let mut client = server.client().await;
    let answer = client.model_infer(asking_for(3, &["features"])).await.unwrap().into_inner();
    let artifact = Artifact::open(folder.path()).unwrap();
    let backbone = artifact.backbone(&artifact.variant("f32").unwrap()).unwrap().unwrap();
    let said = answer.parameters["backbone"].parameter_choice.clone();
    assert_eq!(said, Some(ParameterChoice::StringParam(backbone.digest)));
    let [output] = &answer.outputs[..] else { panic!("{:?}", answer.outputs) };
    assert_eq!((&*output.name, &*output.datatype, &output.shape[..]), ("features", "FP32", &[3, 36][..]));
    let xs: Vec<f32> = (0..3 * PIXELS).map(|index| (index % 11) as f32 / 11.0).collect();
    let xs = Tensor::from_vec(xs, (3, 1, 8, 8), &Device::Cpu).unwrap();
    let expected: Vec<f32> = backbone.network.infer(&xs).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let features: Vec<f32> =
        answer.raw_output_contents[0].as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    assert!(features.iter().zip(&expected).all(|(one, other)| (one - other).abs() < 1e-5) && features.len() == 108);

    let both = client.model_infer(asking_for(1, &["output", "features"])).await.unwrap_err();
    assert_eq!(both.code(), Code::InvalidArgument);
    let plain = client.model_infer(request(1)).await.unwrap().into_inner();
    assert!(plain.parameters.is_empty() && plain.outputs.len() == 1);
    let metadata = ModelMetadataRequest { name: MODEL.into(), version: String::new() };
    let metadata = client.model_metadata(metadata).await.unwrap().into_inner();
    assert_eq!(metadata.outputs.len(), 1, "who asks for all outputs asks for no features");
    // They are no answers of the model: nobody measures it by them.
    let name = MODEL.into();
    let statistics = client.model_statistics(ModelStatisticsRequest { name, version: String::new() }).await.unwrap();
    let of_model = &statistics.get_ref().model_stats[0];
    let success = of_model.inference_stats.as_ref().unwrap().success.as_ref().unwrap().count;
    assert_eq!((of_model.execution_count, success), (1, 1));

    let body = serde_json::json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": vec![0.5; 64]}],
        "outputs": [{"name": "features"}]});
    let reply = ask(server.rest, "POST", INFER, &[], body.to_string().as_bytes()).await.json();
    assert_eq!(reply["outputs"][0]["shape"], serde_json::json!([1, 36]));
    assert!(reply["parameters"]["backbone"].as_str().unwrap().starts_with("sha256:"), "{reply}");
}

#[tokio::test]
async fn a_model_without_a_backbone_says_so() {
    let folder = tiny(7);
    let file = folder.path().join("config.json");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("\"head\": \"dense_1\"", "\"head\": \"conv2d_1\"")).unwrap();
    let server = Server::of_folder(EXECUTOR, folder.path()).await;
    let mut client = server.client().await;
    for _ in 0..2 {
        let refused = client.model_infer(asking_for(1, &["features"])).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().starts_with("the model gives no features: not every way from its input"));
    }
    client.model_infer(request(1)).await.unwrap();
    let name = MODEL.into();
    let statistics = client.model_statistics(ModelStatisticsRequest { name, version: String::new() }).await.unwrap();
    let of_model = statistics.get_ref().model_stats[0].inference_stats.unwrap();
    let counts = [of_model.success, of_model.fail].map(|counted| counted.unwrap().count);
    assert_eq!(counts, [1, 0], "that it gives none is no failure of the model");

    // Who was never asked while its files were there says what is missing; answers need them no more.
    let server = Server::start(EXECUTOR, 4, 16).await;
    let mut client = server.client().await;
    let refused = client.model_infer(asking_for(1, &["features"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(refused.message().starts_with("the model's backbone cannot be loaded: "), "{}", refused.message());
    client.model_infer(request(1)).await.unwrap();
}
