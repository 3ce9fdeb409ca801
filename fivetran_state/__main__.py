from fivetran_state.cli import main

main()
