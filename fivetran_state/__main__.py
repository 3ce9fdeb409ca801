from fivetran_state.main import main

main()
