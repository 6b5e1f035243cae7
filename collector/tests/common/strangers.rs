//! An S3 server that others wrote (moto), and a Python that has it.

#[path = "../../../model/examples/against_onnx_runtime/python.rs"]
mod python;
#[path = "../../../e2e/src/untried.rs"]
mod untried;

use super::until;
use python::{Nothing, python};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Of an environment with all of them; `None` if nothing is to be tried.
pub fn interpreter() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("collector-strangers");
    match python(&folder, include_str!("../readers/requirements.txt")) {
        Ok(interpreter) => Some(interpreter),
        Err(why) if why.is::<Nothing>() => untried(&format!("{Nothing}: {why}")),
        Err(error) => panic!("{error:#}"),
    }
}

/// Says that nothing was tried, and why; a failure, unless that may be so.
pub fn untried<T>(why: &str) -> Option<T> {
    untried::untried(&format!("what others wrote to read, keep and tell samples was NOT tried: {why}")).unwrap();
    None
}

/// A program, ended with its test.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

pub fn moto(interpreter: &Path, port: u16) -> Server {
    let server = Command::new(interpreter)
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(server);
    until("moto answers", || answers(port));
    server
}

pub fn bucket(interpreter: &Path, variables: &[(&str, &str)]) {
    let script = "import boto3,os; boto3.client('s3',endpoint_url=os.environ['AWS_ENDPOINT_URL'],region_name='us-east-1').create_bucket(Bucket='lake')";
    let made = Command::new(interpreter).args(["-c", script]).envs(variables.iter().copied()).status().unwrap();
    assert!(made.success());
}

/// Copies all of it into a folder.
pub fn leave(interpreter: &Path, variables: &[(&str, &str)], folder: &Path) {
    let script = "
import boto3, os, sys
s3 = boto3.client('s3', endpoint_url=os.environ['AWS_ENDPOINT_URL'], region_name='us-east-1')
for page in s3.get_paginator('list_objects_v2').paginate(Bucket='lake'):
    for item in page['Contents']:
        path = os.path.join(sys.argv[1], item['Key'])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        s3.download_file('lake', item['Key'], path)
";
    let mut copying = Command::new(interpreter);
    copying.args(["-c", script]).arg(folder).envs(variables.iter().copied());
    assert!(copying.status().unwrap().success());
}
