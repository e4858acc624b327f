/** What a source file imports, and which ambient things (time, chance, process, console) it reaches for. */
import ts from 'typescript';

export interface Import {
  readonly from: string;
  /** Gone after compilation. */
  readonly typeOnly: boolean;
}

export interface SourceFacts {
  readonly imports: readonly Import[];
  /** Such as "Date.now", "setTimeout" or "process", each once. */
  readonly ambient: readonly string[];
}

/** Names that mean the outside world wherever they are not shadowed by a parameter or a declaration. */
const AMBIENT_NAMES = new Set(['process', 'console', 'setTimeout', 'setInterval']);
const AMBIENT_MEMBERS = new Set(['Date.now', 'Math.random', 'performance.now']);

export function sourceFacts(text: string): SourceFacts {
  const file = ts.createSourceFile('source.ts', text, ts.ScriptTarget.Latest, true);
  const imports: Import[] = [];
  const ambient = new Set<string>();

  const visit = (node: ts.Node, shadowed: ReadonlySet<string>): void => {
    const found = importOf(node);
    if (found) imports.push(found);
    if (found?.from === 'node:process') ambient.add('process');
    const name = ambientOf(node);
    if (name !== undefined && !shadowed.has(name)) ambient.add(name);
    const inner = ts.isFunctionLike(node) ? new Set([...shadowed, ...node.parameters.flatMap((p) => boundNames(p.name))]) : shadowed;
    ts.forEachChild(node, (child) => visit(child, inner));
  };
  visit(file, new Set(file.statements.flatMap(declaredNames)));
  return { imports, ambient: [...ambient].sort() };
}

function importOf(node: ts.Node): Import | undefined {
  if (ts.isImportDeclaration(node) && ts.isStringLiteral(node.moduleSpecifier)) {
    // `import { type A }` stays as an import of the module (verbatimModuleSyntax); only `import type` goes.
    return { from: node.moduleSpecifier.text, typeOnly: node.importClause?.isTypeOnly ?? false };
  }
  if (ts.isExportDeclaration(node) && node.moduleSpecifier && ts.isStringLiteral(node.moduleSpecifier)) {
    return { from: node.moduleSpecifier.text, typeOnly: node.isTypeOnly };
  }
  if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument) && ts.isStringLiteral(node.argument.literal)) {
    return { from: node.argument.literal.text, typeOnly: true };
  }
  if (ts.isCallExpression(node)) {
    const argument = node.arguments[0];
    const loads = node.expression.kind === ts.SyntaxKind.ImportKeyword || isRequire(node.expression);
    if (loads && argument && ts.isStringLiteral(argument)) return { from: argument.text, typeOnly: false };
  }
  return undefined;
}

/** `require(…)`, and `createRequire(…)(…)`, which is how an ES module says it. */
function isRequire(callee: ts.Expression): boolean {
  if (ts.isIdentifier(callee)) return callee.text === 'require';
  return ts.isCallExpression(callee) && ts.isIdentifier(callee.expression) && callee.expression.text === 'createRequire';
}

function ambientOf(node: ts.Node): string | undefined {
  if (ts.isPropertyAccessExpression(node) && ts.isIdentifier(node.expression)) {
    const member = `${node.expression.text}.${node.name.text}`;
    if (AMBIENT_MEMBERS.has(member)) return member;
  }
  if (ts.isNewExpression(node) && ts.isIdentifier(node.expression) && node.expression.text === 'Date' && !node.arguments?.length) {
    return 'Date.now';
  }
  if (!ts.isIdentifier(node) || !AMBIENT_NAMES.has(node.text)) return undefined;
  return isReference(node) ? node.text : undefined;
}

/** Whether the name stands for a value here, not for a property, a label of one, or something being declared. */
function isReference(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) return parent.expression === node;
  if (ts.isPropertyAssignment(parent)) return parent.initializer === node;
  if (ts.isVariableDeclaration(parent) || ts.isParameter(parent)) return parent.initializer === node;
  if (ts.isTypeNode(parent) || ts.isImportSpecifier(parent) || ts.isExportSpecifier(parent)) return false;
  return !(ts.isTypeElement(parent) || ts.isClassElement(parent) || ts.isBindingElement(parent) || ts.isQualifiedName(parent));
}

function boundNames(name: ts.BindingName): string[] {
  if (ts.isIdentifier(name)) return [name.text];
  return name.elements.flatMap((element) => (ts.isBindingElement(element) ? boundNames(element.name) : []));
}

function declaredNames(statement: ts.Statement): string[] {
  if (ts.isVariableStatement(statement)) return statement.declarationList.declarations.flatMap((d) => boundNames(d.name));
  if (ts.isFunctionDeclaration(statement) && statement.name) return [statement.name.text];
  return [];
}
