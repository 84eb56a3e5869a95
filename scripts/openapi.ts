/** Writes openapi.json from the route table. `npm run openapi` after a change of a row; a test refuses a stale one. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageVersion } from '../gateway/config.ts'
import { openApi } from '../gateway/openapi.ts'
import { routes } from '../gateway/routes.ts'
import { projectDir } from './config.ts'

const file = join(projectDir, 'openapi.json')
writeFileSync(file, `${JSON.stringify(openApi(routes(packageVersion()), packageVersion()), null, 2)}\n`)
console.log(`wrote ${file}`)
