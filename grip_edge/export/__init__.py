"""From a LLaVA checkpoint in Hugging Face format to a bundle of four ONNX graphs (``exporter.export_bundle``)."""
