"""The exported model as one GGUF file: what llama.cpp, llama-server and Ollama load."""
