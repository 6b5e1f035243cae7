//! Encoded images in the place of the tensor: the answer is that to the tensor which training would have made of them.

use super::EXECUTOR;
use super::rest::{INFER, LENGTH, ask};
use crate::common::{PIXELS, Server, of_images, png, request};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sconce_edge_runtime::wire::{InferTensorContents, raw_fp32};
use sconce_model::preprocess::{Image, Material, Preprocess, Step};
use serde_json::json;

fn pixels(index: usize) -> Vec<u8> {
    (0..PIXELS).map(|pixel| (pixel * (index + 3) * 7 % 256) as u8).collect()
}

/// As the trainer prepares it for this model.
fn trained(pixels: &[u8]) -> Vec<f32> {
    let steps = vec![Step::Scale { by: 1.0 / 255.0 }];
    let preprocess = Preprocess { version: 1, input: Material::Image, steps };
    preprocess.apply(Image::grey(pixels, 8, 8).unwrap()).unwrap()
}

#[tokio::test]
async fn every_form_of_an_image_gets_the_answer_of_its_tensor() {
    let server = Server::start(EXECUTOR, 4, 16).await;
    let mut client = server.client().await;
    let images = [pixels(0), pixels(1)];
    let mut tensor = request(2);
    tensor.raw_input_contents = vec![raw_fp32(&images.iter().flat_map(|pixels| trained(pixels)).collect::<Vec<_>>())];
    let expected = client.model_infer(tensor).await.unwrap().into_inner().raw_output_contents.remove(0);
    let images = images.map(|pixels| png(&pixels, 8));

    let typed = client.model_infer(of_images(&[2, 1], &images)).await.unwrap().into_inner();
    let bits = |contents: &Option<InferTensorContents>| raw_fp32(&contents.as_ref().unwrap().fp32_contents);
    assert_eq!(bits(&typed.outputs[0].contents), expected);

    let lengths = |image: &Vec<u8>| [&(image.len() as u32).to_le_bytes()[..], image].concat();
    let raw: Vec<u8> = images.iter().flat_map(lengths).collect();
    let mut message = of_images(&[2], &[]);
    message.inputs[0].contents = None;
    message.raw_input_contents = vec![raw.clone().into()];
    assert_eq!(client.model_infer(message).await.unwrap().into_inner().raw_output_contents, [&expected]);

    let head = json!({"parameters": {"binary_data_output": true}, "inputs": [{"name": "encoded", "datatype": "BYTES",
        "shape": [2, 1], "parameters": {"binary_data_size": raw.len()}}]})
    .to_string();
    let length = head.len().to_string();
    let reply = ask(server.rest, "POST", INFER, &[(LENGTH, &length)], &[head.as_bytes(), &raw].concat()).await;
    assert!(reply.body.ends_with(&expected), "{}", reply.status);

    let base64: Vec<String> = images.iter().map(|image| BASE64_STANDARD.encode(image)).collect();
    let request = json!({"parameters": {"binary_data_output": true},
        "inputs": [{"name": "encoded", "datatype": "BYTES", "shape": [2, 1], "data": base64}]});
    let reply = ask(server.rest, "POST", INFER, &[], request.to_string().as_bytes()).await;
    assert!(reply.body.ends_with(&expected), "{}", reply.status);

    let alone = ask(server.rest, "POST", INFER, &[("content-type", "image/png")], &images[0]).await.json();
    let first = alone["outputs"][0]["data"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32);
    assert_eq!(raw_fp32(&first.collect::<Vec<_>>()), expected[..12]);
}

/// The beginning of a PNG, as long as what tells its size.
fn head(width: u32, height: u32, [depth, colour]: [u8; 2]) -> Vec<u8> {
    let [width, height] = [width, height].map(u32::to_be_bytes);
    let header = [&width[..], &height, &[depth, colour, 0, 0, 0]].concat();
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(&[&kind[..], data].concat());
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &crc.sum().to_be_bytes()].concat()
    };
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &[0; 8])].concat()
}

/// They ended a server of 96 MiB: 128 KB of PNG are 128 MiB of pixels, and a row was made larger by 60 GB on its way to be smaller.
#[tokio::test]
async fn what_would_take_the_servers_memory_is_refused_by_its_head() {
    let server = Server::start(EXECUTOR, 4, 16).await;
    let mut client = server.client().await;
    for (image, expected) in [
        (head(4096, 4096, [16, 6]), "it has 4096\u{d7}4096 pixels, at most "),
        (head(4097, 4096, [8, 0]), "it has 4096\u{d7}4097 pixels, at most "),
        (head(1 << 16, 1, [8, 0]), "it has 1\u{d7}65536 pixels, sides of at most 65535 are taken"),
        // Of its one row alone.
        (head(1 << 24, 1, [8, 0]), "takes more than 2 MiB; scale it down, or leave that out"),
    ] {
        let status = client.model_infer(of_images(&[1, 1], &[image])).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(expected), "{}", status.message());
    }
}

#[tokio::test]
async fn what_is_no_image_of_the_model_is_told() {
    let server = Server::start(EXECUTOR, 4, 16).await;
    let mut client = server.client().await;
    let good = png(&pixels(0), 8);
    for (shape, images, expected) in [
        (
            &[1, 1][..],
            vec![b"plain".to_vec()],
            "input \"encoded\" at 0: it is no PNG or JPEG that can be read: 5 bytes",
        ),
        (&[2, 1], vec![good.clone(), good[..50].to_vec()], "input \"encoded\" at 1: it is no PNG or JPEG"),
        (&[1, 1], vec![png(&[0; 70], 10)], "an image of [7, 10] becomes [1, 7, 10], the input is [1, 8, 8]; send one"),
        (&[2, 1], vec![good.clone()], "input \"encoded\" has 1 elements; shape [2, 1] needs 2"),
        (&[9, 1], vec![], "input \"encoded\" has shape [9, 1]; the model takes [-1, 1], the first being 1 to 4"),
    ] {
        let status = client.model_infer(of_images(shape, &images)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(expected), "{}", status.message());
    }
    let reply = ask(server.rest, "POST", INFER, &[("content-type", "image/jpeg")], b"nothing").await;
    assert_eq!(reply.status, 400);
    assert!(reply.error().contains("input \"encoded\" at 0: it is no PNG or JPEG"), "{}", reply.error());
    client.model_infer(of_images(&[1, 1], &[good])).await.unwrap();
}
