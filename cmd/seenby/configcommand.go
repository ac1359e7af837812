package main

type configCommand struct {
	Check configCheckCommand `cmd:"" help:"Name every problem of the settings; exits 1 where there is one."`
	Print configPrintCommand `cmd:"" help:"Print every setting and where it came from; secrets as ***."`
}

type configCheckCommand struct{ operational }

// Run checks what 'serve' would need.
func (c configCheckCommand) Run(env *environment) error {
	if _, err := env.settings(c.DataDir, serveNeeds...); err != nil {
		return err
	}
	env.printf("the settings are fine\n")
	return nil
}

type configPrintCommand struct{ operational }

// Run prints the settings, also such as are not enough to serve.
func (c configPrintCommand) Run(env *environment) error {
	s, err := env.settings(c.DataDir)
	env.printf("%s", s.String())
	return err
}
